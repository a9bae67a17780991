"""D3, mmpretrain#507, pytorch/vision#2831, jphototagger#5: hidden entries, one name in two Unicode forms."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from PIL import Image

from limbeck.data import load_source

NAME = "caf\u00e9"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "JPEG")


def test_hidden_entries_are_skipped_and_counted_in_one_line(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        for label in ("cat", "dog"):
            picture(tmp_path / part / label / "1.JPG")
            picture(tmp_path / part / label / "2.Jpeg")
        picture(tmp_path / part / ".ipynb_checkpoints" / "1.jpg")
        (tmp_path / part / "dog" / "._1.jpg").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "__MACOSX").mkdir()
    splits = load_source(f"imagefolder:{tmp_path}")
    assert splits.classes == ["cat", "dog"]
    assert len(splits.train) == 4
    said = [note for note in splits.notes if "hidden" in note]
    assert said == ["5 hidden entries skipped: '.ipynb_checkpoints', '__MACOSX', '._1.jpg'"]


def test_names_are_compared_in_composed_form(tmp_path: Path) -> None:
    for part, form in (("train", "NFC"), ("validation", "NFD")):
        for label in (NAME, "bar"):
            picture(tmp_path / part / unicodedata.normalize(form, label) / "1.jpg")  # type: ignore[arg-type]
    splits = load_source(f"imagefolder:{tmp_path}")
    assert splits.classes == ["bar", NAME]
    assert splits.validation is not None
    assert splits.validation.targets().tolist() == [0, 1]


def test_both_forms_in_one_part_are_one_class(tmp_path: Path) -> None:
    for label in (NAME, unicodedata.normalize("NFD", NAME), "bar"):
        picture(tmp_path / label / "1.jpg")
    splits = load_source(f"imagefolder:{tmp_path}", validation=0, test=0)
    assert splits.classes == ["bar", NAME]
    assert splits.train.targets().bincount().tolist() == [1, 2]


def test_tables_compare_names_alike(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"x,label\n1,{NAME}\n2,bar\n", encoding="utf-8")
    other = unicodedata.normalize("NFD", NAME)
    (tmp_path / "validation.csv").write_text(f"x,label\n1,{other}\n2,bar\n", encoding="utf-8")
    assert load_source(f"csv:{tmp_path}").classes == ["bar", NAME]
