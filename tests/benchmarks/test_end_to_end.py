from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from benchmarks.quality.defaults import network
from benchmarks.speed import end_to_end, loops, rival
from benchmarks.speed.end_to_end import Curve, Material, main, reached, run, summary
from limbeck.data.dataset import ArrayDataset
from limbeck.data.views import Views
from limbeck.engine import Machine
from limbeck.models.cifar import cifar_resnet

LIMBECK = {"views", "precision", "layout", "why", "answers_written", "writing_seconds"}


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """48 random pictures, networks of 8 layers, two epochs."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (48, 3, 32, 32), dtype=torch.uint8)
    data = ArrayDataset(pixels, torch.arange(48) % 4)
    student, teacher = (cifar_resnet(num_classes=4, depth=8) for _ in range(2))
    course = loops.Course(data.augment(Views(0, ["crop", "flip"])), 2, 16, augmented=True)
    return Material(student, teacher.eval(), course, data, tmp_path / "cache")


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    """A folder with one grey sheet of each part."""
    folder = tmp_path / "data" / "cifar100"
    folder.mkdir(parents=True)
    labels = np.arange(5000) % 100
    np.savez(folder / "labels.npz", train=labels, test=labels, names=[f"class {n}" for n in range(100)])
    for part in ("train", "test"):
        Image.new("RGB", (1600, 3200), (90, 120, 150)).save(folder / f"{part}-00.webp", lossless=True)
    return folder.parent


def test_the_first_run_writes_what_later_ones_read(material: Material) -> None:
    later = run("limbeck_later", material)  # whoever deletes the cache does not pay in this row
    assert later["answers_written"] == 0
    first = run("limbeck_first", material)
    assert first["answers_written"] == 2 * 48
    assert first["writing_seconds"] < first["seconds"]
    assert first.keys() == later.keys() > LIMBECK
    assert first["views"] == 2
    assert [accuracy for _, accuracy in first["curve"]] == [accuracy for _, accuracy in later["curve"]]


def test_limbeck_in_float32_is_the_usual_loop(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "by_rule", lambda *given: (Machine(device="cpu"), ""))
    usual, ours = run("usual_live", material), run("limbeck_first", material)
    assert usual["accuracy"] == ours["accuracy"] == usual["curve"][-1][1]
    assert not LIMBECK & usual.keys()


@pytest.mark.skipif(rival.version() is None, reason=rival.HOW)
def test_the_rival_is_the_usual_loop(material: Material) -> None:
    assert run("torchdistill", material)["accuracy"] == run("usual_live", material)["accuracy"]


def test_the_clock_stands_while_a_student_is_scored(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [10.0]
    monkeypatch.setattr(end_to_end.time, "perf_counter", lambda: now[0])

    def scoring(student: nn.Module, test: Any) -> dict[str, float]:
        now[0] += 100
        return {"accuracy": 0.25}

    monkeypatch.setattr(end_to_end, "evaluate", scoring)
    curve = Curve(material.test)
    for _ in range(2):
        now[0] += 3
        curve.epoch(material.student)
    assert curve.points == [(3.0, 0.25), (6.0, 0.25)]


def test_the_worst_row_says_what_is_to_be_reached() -> None:
    curves = {
        "usual_live": [[10.0, 0.1], [20.0, 0.3]],
        "limbeck_first": [[6.0, 0.2], [9.0, 0.25]],
        "limbeck_later": [[2.0, 0.25], [4.0, 0.26]],
    }
    cells = [
        {"row": row, "seed": 0, "seconds": curve[-1][0], "accuracy": curve[-1][1], "curve": curve}
        for row, curve in curves.items()
    ]
    found = summary(cells)
    assert found["accuracy_to_reach"] == {0: 0.25}
    assert [each["seconds_to_accuracy"] for each in found["rows"].values()] == [20.0, 9.0, 2.0]
    assert found["times_faster_in_seconds"] == {"usual_live": 1, "limbeck_first": 2.22, "limbeck_later": 5}
    assert found["times_faster_in_seconds_to_accuracy"]["limbeck_later"] == 10.0


def test_an_accuracy_that_is_never_reached() -> None:
    assert reached([[1.0, 0.1]], 0.2) == float("inf")


def test_stored_rows_are_not_run_again(
    sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(rival.FOLDER)])
    weights, file = tmp_path / "teacher.safetensors", tmp_path / "result.json"
    save_file(network("resnet56").body.state_dict(), weights)
    given = ["--data", str(sheets), "--teacher-weights", str(weights), "--json", str(file)]
    given += ["--samples", "32", "--test-samples", "20", "--epochs", "1", "--batch", "16"]
    given += ["--caches", str(tmp_path / "caches"), "--torchdistill", str(tmp_path / "none")]
    assert main([*given, "--rows", "torchdistill", "limbeck_first"]) == 0
    assert rival.HOW in capsys.readouterr().err
    assert main([*given, "--rows", "limbeck_first", "limbeck_later"]) == 0
    said = capsys.readouterr()
    assert "limbeck_later" in said.err
    assert "limbeck_first" not in said.err
    found = json.loads(said.out)
    assert found == json.loads(file.read_text())
    assert set(found["rows"]) == {"limbeck_first", "limbeck_later"}
    assert found["settings"]["samples"] == 32
    assert main([*given[:-1], str(tmp_path / "none"), "--rows", "limbeck_later", "--samples", "48"]) == 0
    assert set(json.loads(file.read_text())["rows"]) == {"limbeck_later"}  # the others had other settings
