"""The figures of the quickstart, from a short run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import quickstart

SHORT = [
    "data.limit=300",
    "data.labels=100",
    "teacher.train.epochs=1",
    "train.epochs=1",
    "export.calibration=64",
    "machine.threads=1",
]


def test_a_short_run_has_every_figure(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "deep" / "quickstart.json"
    given = [word for change in SHORT for word in ("--set", change)]
    assert quickstart.main([*given, "--json", str(file)]) == 0
    found = json.loads(file.read_text("utf-8"))
    assert found["check_seconds"] > 0
    assert found["distill_seconds"] > 0
    assert found["onnx"]["difference"] <= 1e-4
    assert 0 <= found["int8"]["agreement"] <= 1
    assert 10_000 < found["report"]["bytes"] < 3_000_000


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 2: error: there is no recipe quikstart"):
        quickstart.timed(["check", "quikstart"], tmp_path)
