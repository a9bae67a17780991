from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import cache


def test_writing_and_reading_have_their_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    tiny = ["--samples", "128", "--rounds", "2", "--steps", "2", "--teacher", "8", "--records", "256"]
    assert cache.main(["--parts", "writing", "reading", "bytes", *tiny, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert set(found["writing"]["samples_a_second"]) == {"bare", "fill"}
    assert len(found["writing"]["share_by_round"]) == 2
    assert set(found["reading"]["share_of_step"]) == {"cached_fp32", "default"}
    assert found["reading"]["milliseconds"] > 0
    assert set(found["bytes"]) == set(cache.STORES)
    assert found["machine"]["cores"]
    capsys.readouterr()


def test_narrower_stores_take_less_room() -> None:
    found = cache.room(256)
    assert found["float16"] < found["float32"]
    assert found["float16, top-k 64"] < found["float32, top-k 64"] < found["float16"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
def test_memory_is_measured_in_processes_of_their_own() -> None:
    found = cache.memory(records=128, reads=3)
    assert set(found["by_records"]) == {"128", "1280"}
    for each in found["by_records"].values():
        assert each["anonymous_peak"] > 0
        assert each["resident_peak"] >= each["anonymous_peak"]
    assert set(found["growth_at_10_x"]) == {"anonymous", "resident"}


def test_drawn_samples_are_the_same_in_any_batch() -> None:
    data = cache.Drawn(100)
    whole = data.batch(range(100))["inputs"]
    assert torch.equal(data.batch([7, 3])["inputs"], whole[[7, 3]])
    assert whole.shape == (100, 8)
    assert len(data.targets()) == len(data)
