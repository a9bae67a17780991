"""Layers of a finished student: its folder knows what it takes and how many outputs it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from limbeck import list_layers
from limbeck.errors import RequestError
from limbeck.models import build, save_student
from limbeck.models.building import Architecture


def saved(folder: Path, architecture: Architecture) -> str:
    network = build(
        architecture.spec,
        num_classes=architecture.num_classes,
        channels=architecture.channels,
        size=architecture.size,
        options=architecture.options,
    )
    return str(save_student(folder / "student", network, architecture=architecture))


def test_rows_and_pictures_are_shown_as_in_training(tmp_path: Path) -> None:
    folder = saved(tmp_path / "rows", Architecture("mlp", 3, 5, (), {"widths": [4]}))
    assert [(row["path"], row["shape"]) for row in list_layers(folder).entries][-1] == ("fc", (3,))
    folder = saved(tmp_path / "pictures", Architecture("cnn-tiny", 7, 1, (28, 28)))
    shapes = {row["path"]: row["shape"] for row in list_layers(folder).entries}
    assert (shapes["layer1"], shapes["fc"]) == ((32, 7, 7), (7,))
    wider = {row["path"]: row["shape"] for row in list_layers(folder, size=56).entries}
    assert wider["layer1"] == (32, 14, 14)


def test_what_the_folder_knows_better_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, Architecture("cnn-tiny", 7, 1, (28, 28)))
    with pytest.raises(RequestError, match=r"classes 10: the network in .* has 7"):
        list_layers(folder, classes=10)
    with pytest.raises(RequestError, match=r"channels 3: the network in .* has 1"):
        list_layers(folder, channels=3)


class Pair(nn.Module):
    """Adds a number of each row to each position of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(1, 4)

    def forward(self, rows: Tensor, bias: Tensor) -> Tensor:
        return self.first(rows) + self.second(bias)


def test_a_network_is_shown_the_example_it_is_given() -> None:
    rows = list_layers(nn.Sequential(nn.Linear(5, 4), nn.ReLU()), example=torch.rand(2, 5))
    assert [row["shape"] for row in rows] == [(4,), (4,)]
    assert "shown 5;" in repr(rows)
    several = list_layers(Pair(), example={"rows": torch.rand(2, 3, 5), "bias": torch.rand(2, 3, 1)})
    assert {row["path"]: row["shape"] for row in several}["second"] == (3, 4)
    assert "shown rows and bias;" in repr(several)


def test_a_network_that_takes_no_pictures_says_so() -> None:
    with pytest.raises(RequestError, match="the model does not take 3x32x32") as caught:
        list_layers(nn.Linear(5, 4))
    assert "example=INPUTS" in str(caught.value.fix)
    with pytest.raises(RequestError, match="size and channels are those of the example"):
        list_layers(nn.Linear(5, 4), size=3, example=torch.rand(2, 5))
