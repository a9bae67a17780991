"""D8, pytorch/pytorch#15666: labels 1 to 10 fail only when label 10 comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck.data import load_source


def numbers(count: int) -> dict[str, list[float] | list[int]]:
    return {"x": [i / 7 for i in range(count)], "label": [1 + i % 10 for i in range(count)]}


def test_parquet_labels_are_numbered_from_the_training_data(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for part, count in (("train", 40), ("validation", 7)):
        parquet.write_table(pyarrow.table(numbers(count)), tmp_path / f"{part}.parquet")
    splits = load_source(f"parquet:{tmp_path}")
    assert splits.classes == [str(label) for label in range(1, 11)]
    assert splits.train.targets().tolist() == [i % 10 for i in range(40)]
    assert splits.validation is not None
    assert splits.validation.targets().tolist() == list(range(7))
    assert "labels are numbered from the training data: 1 -> 0, 2 -> 1, ..., 10 -> 9" in splits.notes
    logits = torch.zeros(40, 10)
    assert torch.isfinite(splits.task.loss(logits, {"targets": splits.train.targets()}))


def test_csv_labels_are_numbered_alike(tmp_path: Path) -> None:
    table = numbers(40)
    rows = "\n".join(f"{x},{label}" for x, label in zip(table["x"], table["label"], strict=True))
    (tmp_path / "a.csv").write_text(f"x,label\n{rows}\n")
    splits = load_source(f"csv:{tmp_path / 'a.csv'}", validation=0, test=0)
    assert splits.train.targets().tolist() == [i % 10 for i in range(40)]


def test_labels_from_zero_need_no_word(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n" + "\n".join(f"{i},{i % 3}" for i in range(9)))
    splits = load_source(f"csv:{tmp_path / 'a.csv'}", validation=0, test=0)
    assert splits.classes == ["0", "1", "2"]
    assert not any("numbered" in note for note in splits.notes)
