"""D2, pytorch-image-models#957, ultralytics#13936: a class without validation files shifts later labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from limbeck import evaluate
from limbeck.data import load_source
from limbeck.errors import RequestError


def made(root: Path, parts: dict[str, dict[str, int]]) -> Path:
    for part, classes in parts.items():
        for name, number in classes.items():
            (root / part / name).mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (4, 4), (ord(name), 0, 0)).save(root / part / name / f"{i}.png")
    return root


ABC = {"a": 3, "b": 3, "c": 3}


def test_training_classes_bind_every_part(tmp_path: Path) -> None:
    root = made(tmp_path, {"train": ABC, "validation": {"a": 2, "b": 0, "c": 2}, "test": {"c": 1}})
    splits = load_source(f"imagefolder:{root}")
    assert splits.classes == ["a", "b", "c"]
    assert splits.validation is not None
    assert splits.test is not None
    assert splits.validation.targets().tolist() == [0, 0, 2, 2]
    assert splits.test.targets().tolist() == [2]
    notes = " | ".join(splits.notes)
    assert "validation has no sample of class 'b', so no score for it there" in notes
    assert "test has no sample of classes 'a', 'b'" in notes


class ByColour(nn.Module):
    """Answers 0, 1, 2 for a, b, c by the pixel that they are drawn in."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        number = (pixels[:, 0, 0, 0] * 255).round().long() - ord("a")
        return nn.functional.one_hot(number, 3).float()


def test_a_right_network_scores_in_full(tmp_path: Path) -> None:
    root = made(tmp_path, {"train": ABC, "validation": {"a": 2, "b": 0, "c": 2}})
    splits = load_source(f"imagefolder:{root}")
    assert evaluate(ByColour(), splits.validation, splits.task)["accuracy"] == 1.0


def test_a_class_only_in_validation_is_refused(tmp_path: Path) -> None:
    root = made(tmp_path, {"train": ABC, "validation": {"a": 1, "d": 2}})
    with pytest.raises(
        RequestError, match=r"validation has 2 samples of 'd', a class that training does not"
    ):
        load_source(f"imagefolder:{root}")


def test_an_empty_training_folder_is_no_class(tmp_path: Path) -> None:
    root = made(tmp_path, {"train": {**ABC, "d": 0}, "validation": ABC})
    splits = load_source(f"imagefolder:{root}")
    assert splits.classes == ["a", "b", "c"]
    assert any("no classes: 'd'" in note for note in splits.notes)


def test_tables_have_the_same_rule(tmp_path: Path) -> None:
    for part, labels in {"train": "abcabc", "validation": "acac", "test": "d"}.items():
        rows = "\n".join(f"{i},{label}" for i, label in enumerate(labels))
        (tmp_path / f"{part}.csv").write_text(f"x,label\n{rows}\n")
    with pytest.raises(RequestError, match="test has 1 sample of 'd'"):
        load_source(f"csv:{tmp_path}")
    (tmp_path / "test.csv").unlink()
    splits = load_source(f"csv:{tmp_path}")
    assert splits.validation is not None
    assert splits.validation.targets().tolist() == [0, 2, 0, 2]
