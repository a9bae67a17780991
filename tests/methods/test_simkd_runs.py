"""Runs of SimKD: what stands in the table, is saved, exported and taught from is what was deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from limbeck import Run, distill
from limbeck._run.screen import silent

RECIPE = """name = "tiny"
[data]
source = "fashion-small"
limit = 120
labels = 60
[teacher]
model = "resnet-small"
options = { widths = [4, 8, 8, 64] }
train = { epochs = 1 }
[student]
model = "cnn-tiny"
options = { widths = [4, 4, 8, 8] }
[method]
name = "simkd"
factor = 8
[train]
epochs = 1
batch_size = 32
[machine]
threads = 1
"""
#: Of the projector from 8 to 64 channels at factor 8, without running statistics, and of the classifier.
PROJECTOR, CLASSIFIER = 8 * 8 + 9 * 8 * 8 + 8 * 64 + 4 * 8 + 2 * 64, 64 * 10 + 10


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def reused(run: Run) -> set[str]:
    """Names of the stored values of the tail."""
    stored = load_file(run.folder / "student" / "model.safetensors")
    return {name.partition("tails.0.")[2] for name in stored if "tails.0." in name}


def test_a_run_counts_saves_and_exports_all_that_is_deployed(recipe: Path) -> None:
    run = distill(recipe, screen=silent())
    networks = run.figures["networks"]
    own = 8 * 10 + 10  # its classifier, which is gone
    wanted = networks["alone"]["parameters"] - own + PROJECTOR + CLASSIFIER
    assert networks["distilled"]["parameters"] == wanted
    assert all(networks[key]["latency"]["median"] > 0 for key in ("teacher", "alone", "distilled", "onnx"))
    row = next(line for line in run.table.text().splitlines() if line.startswith("student distilled"))
    assert f"{wanted:,}" in row
    assert {"classifier.weight", "projector.layers.7.running_mean"} <= reused(run)
    told = json.loads((run.folder / "student" / "config.json").read_text())
    assert told["limbeck"]["architecture"]["spec"] == "composed"
    assert run.student().logits(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_a_finished_student_teaches_the_next(recipe: Path) -> None:
    fast = "export.to=[]"
    first = distill(recipe, overrides=['method.reuse_from="layer3"', fast], screen=silent())
    assert any(name.startswith("reused.0.") for name in reused(first))
    student = first.folder / "student"
    teacher = [f"teacher={{model='{student}',weights='{student}',accept_chance=true}}"]
    second = distill(recipe, overrides=[*teacher, fast], output="runs/second", screen=silent())
    one, two = (run.figures["networks"] for run in (first, second))
    assert two["teacher"]["score"] == one["distilled"]["score"]
    assert two["teacher"]["parameters"] == one["distilled"]["parameters"]
