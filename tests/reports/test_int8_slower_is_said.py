"""E3, microsoft/onnxruntime#20052, huggingface/transformers#13944: int8 that is slower than float."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck._run.export import judge


def told(float_seconds: float, int8_seconds: float, score: float = 0.9) -> dict[str, Any]:
    small: dict[str, Any] = {"latency_seconds": int8_seconds, "score": score, "note": "512 to calibrate"}
    judge({"onnx": {"latency_seconds": float_seconds, "score": 0.9}, "onnx_int8": small}, "classes")
    return small


def test_a_slower_file_says_so_in_its_row() -> None:
    small = told(20e-6, 29e-6)
    assert small["speed"] == pytest.approx(20 / 29)
    assert small["verdict"].startswith("slower: 1.4 x the time")
    assert small["note"] == "slower than float"


def test_a_worse_file_says_so() -> None:
    assert "worse: 2.0 points lost" in told(20e-6, 10e-6, 0.88)["verdict"]
    assert told(20e-6, 29e-6, 0.88)["note"] == "slower and worse than float"


def test_a_good_file_tells_its_calibration() -> None:
    assert told(20e-6, 10e-6, 0.895) == {
        "latency_seconds": 10e-6,
        "score": 0.895,
        "note": "512 to calibrate",
        "speed": pytest.approx(2),
        "verdict": "2.0 x faster",
    }
