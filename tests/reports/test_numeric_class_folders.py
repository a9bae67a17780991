"""D1, CSAILVision/places365#22, pytorch/vision#714: class folders named by number, read in text order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from limbeck import check
from limbeck._run.screen import silent
from limbeck.data import load_source


def made(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).mkdir()
        for i in range(2):
            Image.new("RGB", (4, 4), (int(name) % 256, 0, 0)).save(root / name / f"{i}.png")
    return root


def test_names_travel_with_the_targets_and_the_order_is_said(tmp_path: Path) -> None:
    splits = load_source(f"imagefolder:{made(tmp_path, ['1', '2', '10', '100'])}", validation=0, test=0)
    assert splits.classes == ["1", "10", "100", "2"]
    batch = splits.train.batch(range(8))
    for target, pixel in zip(batch["targets"].tolist(), batch["inputs"][:, 0, 0, 0].tolist(), strict=True):
        assert splits.classes[target] == str(round(pixel * 255))
    said = [note for note in splits.notes if "numbers in the order of their characters" in note]
    assert len(said) == 1
    assert "1, 10, 100, 2" in said[0]
    assert "1, 2, 10, 100" in said[0]


def test_a_table_with_the_same_names_is_matched_by_name(tmp_path: Path) -> None:
    """Tables count by value: the same classes in another order, which names tell apart."""
    path = tmp_path / "a.csv"
    path.write_text("x,label\n" + "\n".join(f"{i},{label}" for i in range(4) for label in (1, 2, 10, 100)))
    splits = load_source(f"csv:{path}", validation=0, test=0)
    assert splits.classes == ["1", "2", "10", "100"]


@pytest.mark.parametrize("names", [["1", "2", "3"], ["01", "02", "10"]])
def test_nothing_is_said_where_both_orders_agree(tmp_path: Path, names: list[str]) -> None:
    notes = load_source(f"imagefolder:{made(tmp_path, names)}", validation=0, test=0).notes
    assert not any("order" in note for note in notes)


class ByValue(nn.Module):
    """A teacher that counts the folders by value; it tells them by their colour."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.register_buffer("colours", torch.tensor([int(name) % 256 for name in names]) / 255)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return -(10 * self.scale * (pixels[:, 0, 0, 0, None] - self.colours)).square() * 1000


def by_value(num_classes: int, channels: int) -> nn.Module:
    return ByValue(["1", "2", "10", "100"])


def test_check_tests_the_order_on_a_teacher_that_has_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("train", "validation"):
        (tmp_path / "data" / part).mkdir(parents=True)
        made(tmp_path / "data" / part, ["1", "2", "10", "100"])
        for path in (tmp_path / "data" / part).rglob("*.png"):
            shade = {"train": 0, "validation": 3}[part] + int(path.stem)  # no picture in both
            Image.new("RGB", (4, 4), (int(path.parent.name) % 256, shade, 0)).save(path)
    save_file(by_value(4, 3).state_dict(), "teacher.safetensors")
    Path("mine.toml").write_text(
        'name = "order"\n[data]\nsource = "imagefolder:data"\n'
        f'[teacher]\nmodel = "{__name__}:by_value"\nweights = "teacher.safetensors"\nnormalize = "none"\n'
        '[student]\nmodel = "cnn-tiny"\nsize = 28\n[train]\nbatch_size = 4\n[export]\nto = []\n'
    )
    done = check("mine.toml", screen=silent())
    assert [each.code for each in done.errors] == ["K105"], done.text()
    assert "by value" in done.errors[0].detail
    assert any("order of their characters" in note for note in done.notes)
