"""What a run keeps for its report: labelled samples only, each input as a person can look at it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limbeck._run import evidence
from limbeck._run.finish import Final
from limbeck._run.folder import RunFolder
from limbeck.data.dataset import ArrayDataset, Splits
from limbeck.data.sources import load_source
from limbeck.task import Classification


def finals(target: Tensor, *keys: str, classes: int = 2) -> dict[str, Final]:
    """Networks of which each is wrong on every second sample; the teacher on the others."""
    found = {}
    for number, key in enumerate(keys):
        wrong = torch.arange(len(target)) % 2 == number % 2
        answers = {
            "target": target,
            "predicted": torch.where(wrong, (target.clamp(min=0) + 1) % classes, target.clamp(min=0)),
            "confidence": torch.linspace(0.4, 0.9, len(target)),
        }
        found[key] = Final(nn.Identity(), {}, answers)
    return found


def kept(tmp_path: Path, inputs: Any, reading: dict[str, Any], target: Tensor) -> list[dict[str, Any]]:
    """The samples in dispute of a set of inputs."""
    data = ArrayDataset(inputs, target)
    splits = Splits(data, None, data, Classification(["a", "b"]), "mine", reading=reading)
    folder = RunFolder(tmp_path)
    evidence.keep(folder, splits, data, finals(target, "teacher", "distilled"))
    held = evidence.read(folder)
    assert held is not None
    return held.disputed


TARGET = torch.tensor([0, 1, -1, 0, 1, 1, 0])


def test_only_labelled_samples_are_kept(tmp_path: Path) -> None:
    data = ArrayDataset(torch.zeros(7, 2), TARGET)
    splits = Splits(data, None, data, Classification(["a", "b"]), "mine")
    told = evidence.keep(RunFolder(tmp_path), splits, data, finals(TARGET, "teacher", "alone", "distilled"))
    held = evidence.read(RunFolder(tmp_path))
    assert held is not None
    assert held.positions.tolist() == [0, 1, 3, 4, 5, 6]
    assert held.target.tolist() == [0, 1, 0, 1, 1, 0]
    assert list(held.networks) == ["teacher", "alone", "distilled"]
    assert told["samples"] == 6
    assert set(told["calibration_error"]) == {"teacher", "alone", "distilled"}
    assert sum(told["agreement"].values()) - told["agreement"]["same"] == 6


def test_without_a_teacher_nothing_is_in_dispute(tmp_path: Path) -> None:
    data = ArrayDataset(torch.zeros(7, 2), TARGET)
    splits = Splits(data, None, data, Classification(["a", "b"]), "mine")
    told = evidence.keep(RunFolder(tmp_path), splits, data, finals(TARGET, "distilled"))
    assert "agreement" not in told
    held = evidence.read(RunFolder(tmp_path))
    assert held is not None
    assert (held.disputed, held.teacher) == ([], None)


def test_other_tasks_and_older_runs_keep_nothing(tmp_path: Path) -> None:
    data = ArrayDataset(torch.zeros(7, 2), TARGET)
    splits = Splits(data, None, data, Classification(["a", "b"]), "mine")
    values = {"distilled": Final(nn.Identity(), {}, {"predicted": torch.zeros(7)})}
    assert evidence.keep(RunFolder(tmp_path), splits, data, values) == {}
    assert evidence.read(RunFolder(tmp_path)) is None


def test_a_finish_that_is_done_again_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    stale = tmp_path / "evidence" / "stale.txt"
    for _ in range(2):
        kept(tmp_path, torch.zeros(7, 2), {"kind": "tensor"}, TARGET)
        assert not stale.exists()
        stale.write_text("x")


def opened(sample: dict[str, Any]) -> Image.Image:
    """The picture of a sample."""
    assert sample["picture"].startswith("data:image/")
    picture = Image.open(io.BytesIO(base64.b64decode(sample["picture"].partition(",")[2])))
    assert picture.size == (sample["width"], sample["height"])
    return picture


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_small_pictures_are_exact(tmp_path: Path, channels: int, mode: str) -> None:
    pixels = torch.randint(0, 256, (7, channels, 9, 12), dtype=torch.uint8)
    samples = kept(tmp_path, pixels, {"kind": "image", "channels": channels}, TARGET)
    for sample in samples:
        picture = opened(sample)
        assert (picture.format, picture.mode) == ("PNG", mode)
        shown = torch.from_numpy(np.array(picture)).reshape(9, 12, channels)
        assert torch.equal(shown.permute(2, 0, 1), pixels[sample["sample"]])


def test_large_pictures_become_small(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (7, 3, 300, 700), dtype=torch.uint8)
    (sample, *_) = kept(tmp_path, pixels, {"kind": "image", "channels": 3}, TARGET)
    assert opened(sample).size == (160, 69)
    assert len(sample["picture"]) < 20_000


def test_what_is_no_picture_is_named_by_its_place_alone(tmp_path: Path) -> None:
    samples = kept(tmp_path, torch.zeros(7, 4, 8, 8), {"kind": "image", "channels": 4}, TARGET)
    assert samples
    assert all(set(sample) == {"place", "sample"} for sample in samples)


def test_ids_are_shown_as_they_are(tmp_path: Path) -> None:
    ids = {"input_ids": torch.arange(7 * 300).reshape(7, 300)}
    (sample, *_) = kept(tmp_path, ids, {"kind": "tokens", "names": ["input_ids"]}, TARGET)
    assert sample["text"].startswith(f"{300 * sample['sample']} {300 * sample['sample'] + 1} ")
    assert len(sample["text"]) < 410


def test_texts_are_read_back_by_their_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    name = tmp_path / "tokenizer"
    transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(name)
    table = tmp_path / "a.tsv"
    table.write_text("label\ttext\npos\tgood film\nneg\tbad\npos\tgood\nneg\tbad film bad\n")
    splits = load_source(f"csv:{table}", text=["text"], tokenizer=str(name), validation=0, test=0)
    networks = finals(splits.train.targets(), "teacher", "distilled")
    evidence.keep(RunFolder(tmp_path), splits, splits.train, networks)
    held = evidence.read(RunFolder(tmp_path))
    assert held is not None
    told = {sample["sample"]: sample["text"] for sample in held.disputed}
    assert told == {0: "good film", 1: "bad", 2: "good", 3: "bad film bad"}
