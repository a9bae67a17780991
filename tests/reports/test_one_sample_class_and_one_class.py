"""D9, darwin-py#406, ludwig#2831, huggingface/datasets#5153: one sample in a class, and one class in all."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from limbeck.data import load_source
from limbeck.errors import RequestError


def made(root: Path, classes: dict[str, int]) -> Path:
    for name, number in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", (4, 4)).save(root / name / f"{i}.png")
    return root


def test_the_single_sample_stays_in_training_and_is_said(tmp_path: Path) -> None:
    splits = load_source(f"imagefolder:{made(tmp_path, {'a': 20, 'b': 20, 'rare': 1})}")
    assert splits.classes == ["a", "b", "rare"]
    assert splits.train.targets().bincount().tolist() == [16, 16, 1]
    assert splits.validation is not None
    assert 2 not in splits.validation.targets().tolist()
    assert "class 'rare': 1 sample in training, which stays there" in splits.notes
    assert any("validation has no sample of class 'rare'" in note for note in splits.notes)


def test_two_samples_give_one_to_validation(tmp_path: Path) -> None:
    splits = load_source(f"imagefolder:{made(tmp_path, {'a': 20, 'b': 2})}", test=0)
    assert splits.train.targets().bincount().tolist() == [18, 1]
    assert splits.validation is not None
    assert splits.validation.targets().bincount().tolist() == [2, 1]


def test_one_class_in_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="all 5 training samples are of one class, 'only'"):
        load_source(f"imagefolder:{made(tmp_path, {'only': 5})}")


def test_pictures_without_class_folders_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    with pytest.raises(RequestError, match="so they have no class") as caught:
        load_source(f"imagefolder:{tmp_path}")
    assert caught.value.fix is not None
    assert "CLASS" in caught.value.fix


def test_tables_have_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,label\n" + "\n".join(f"{i},{'a' if i % 2 else 'b'}" for i in range(20)) + "\n9,rare\n")
    splits = load_source(f"csv:{path}")
    assert "class 'rare': 1 sample in training, which stays there" in splits.notes
    path.write_text("x,label\n1,a\n2,a\n")
    with pytest.raises(RequestError, match="one class, 'a'"):
        load_source(f"csv:{path}")
    path.write_text("x,other\n1,a\n2,b\n")
    with pytest.raises(RequestError, match="no column named label or target"):
        load_source(f"csv:{path}")
