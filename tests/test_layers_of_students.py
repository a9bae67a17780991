"""Layers of a finished student: its folder knows what it takes and how many outputs it has."""

from __future__ import annotations

from pathlib import Path

import pytest

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
