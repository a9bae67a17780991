from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from limbeck.data.sources import load_source
from limbeck.errors import RequestError


def pictures(folder: Path, number: int, mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        Image.new(mode, (6, 6), i).save(folder / f"{i:02d}.png")


def test_a_split_of_its_own(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for label in ("cat", "dog"):
            pictures(tmp_path / part / label, 3)
    splits = load_source(f"imagefolder:{tmp_path}")
    assert splits.classes == ["cat", "dog"]
    assert [len(part) for part in splits.parts().values()] == [6, 6, 6]
    assert splits.division is None
    assert splits.train.targets().tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.train.batch([0])["inputs"].shape == (1, 3, 6, 6)
    assert splits.reading == {"kind": "image", "channels": 3, "size": [6, 6]}


def test_without_a_split_one_is_drawn_and_returned(tmp_path: Path) -> None:
    for label in "abc":
        pictures(tmp_path / label, 20)
    splits = load_source(f"imagefolder:{tmp_path}", seed=3, validation=0.2)
    assert [len(part) for part in splits.parts().values()] == [42, 12, 6]
    assert splits.division is not None
    joined = torch.cat(list(splits.division.values()))
    assert sorted(joined.tolist()) == list(range(60))
    assert splits.validation is not None
    assert torch.equal(splits.validation.index(), splits.division["validation"])
    assert torch.bincount(splits.validation.targets()).tolist() == [4, 4, 4]
    assert any("drawn from the 60 training samples by seed 3" in note for note in splits.notes)
    again = load_source(f"imagefolder:{tmp_path}", seed=3, validation=0.2)
    assert again.fingerprint() == splits.fingerprint()
    assert load_source(f"imagefolder:{tmp_path}", seed=4).fingerprint() != splits.fingerprint()


def test_validation_of_its_own_but_no_test(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        for label in "ab":
            pictures(tmp_path / part / label, 10)
    splits = load_source(f"imagefolder:{tmp_path}")
    assert splits.test is None
    assert any("no test part" in note for note in splits.notes)
    drawn = load_source(f"imagefolder:{tmp_path}", test=0.2)
    assert [len(part) for part in drawn.parts().values()] == [16, 20, 4]


def test_nested_folders_belong_to_the_first_one(tmp_path: Path) -> None:
    pictures(tmp_path / "a" / "deep" / "deeper", 2)
    pictures(tmp_path / "b", 2)
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a")
    splits = load_source(f"imagefolder:{tmp_path}", validation=0, test=0)
    assert splits.train.targets().tolist() == [0, 0, 1, 1]
    assert splits.validation is None


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    for label in "ab":
        pictures(tmp_path / label, 2, "L")
    splits = load_source(f"imagefolder:{tmp_path}", validation=0, test=0)
    assert splits.train.batch([0])["inputs"].shape == (1, 1, 6, 6)


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    for label in "ab":
        pictures(tmp_path / "train" / label, 4)
    pictures(tmp_path / "train", 1)
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "originals").mkdir()
    pictures(tmp_path / "test", 3)  # without class folders: without labels
    notes = " | ".join(load_source(f"imagefolder:{tmp_path}").notes)
    assert "beside train are not used: 'originals'" in notes
    assert "2 files not used: 'notes.txt', '00.png'" in notes
    assert "no classes: 'empty'" in notes
    assert "test has no labels" in notes


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "validation"):
        pictures(tmp_path / part / "a", 1)
    with pytest.raises(RequestError, match="val and validation are both"):
        load_source(f"imagefolder:{tmp_path}")


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RequestError, match="no picture"):
        load_source(f"imagefolder:{tmp_path}")


def test_a_path_that_does_not_exist_is_refused_with_near_names(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(RequestError) as caught:
        load_source(f"imagefolder:{tmp_path}/flower")
    assert caught.value.near == (f"{tmp_path}/flowers",)
    assert caught.value.fix == f"{tmp_path}/flowers"
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="a folder is needed"):
        load_source(f"imagefolder:{tmp_path}/file")


def test_limit_size_augment_and_skipping(tmp_path: Path) -> None:
    for label in "ab":
        pictures(tmp_path / label, 10)
    (tmp_path / "a" / "03.png").write_bytes(b"broken")
    splits = load_source(
        f"imagefolder:{tmp_path}",
        limit=6,
        size=4,
        augment=["crop", "flip"],
        skip_unreadable=True,
        validation=0.2,
        test=0,
    )
    assert torch.bincount(splits.train.targets()).tolist() == [3, 3]
    assert splits.train.batch([0])["inputs"].shape == (1, 3, 4, 4)
    assert splits.train.augmented
    assert splits.validation is not None
    assert not splits.validation.augmented
    assert any("1 unreadable of 20" in note for note in splits.notes)
    assert splits.division is not None
    assert 3 not in torch.cat(list(splits.division.values())).tolist()
