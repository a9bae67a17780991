from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch

from limbeck.data import embedded, keep_labels, load_source


def test_parts_are_class_balanced_in_every_run_of_ten() -> None:
    splits = load_source("fashion-small")
    sizes = {name: len(part) for name, part in splits.parts().items()}
    assert sizes == {"train": 10_000, "validation": 1_000, "test": 2_000}
    for part in splits.parts().values():
        assert torch.equal(part.targets(), torch.arange(len(part)) % 10)
    assert splits.classes is not None
    assert splits.classes[9] == "Ankle boot"
    assert splits.division is None
    assert splits.notes == []
    batch = splits.train.batch(torch.arange(20))
    assert batch["inputs"].shape == (20, 1, 28, 28)
    assert 0.2 < float(batch["inputs"].mean()) < 0.4


def test_pictures_are_those_of_the_original() -> None:
    debian = Path("/usr/share/datasets/fashion-mnist")
    if not debian.is_dir():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    whole = load_source("fashion-mnist", validation=0)
    small = load_source("fashion-small")
    labels = whole.train.targets()
    boots = (labels == 9).nonzero().squeeze(1)[:3]
    ours = small.train.batch([9, 19, 29])["inputs"]
    assert float((ours - whole.train.batch(boots)["inputs"]).abs().max()) <= 1 / 255 + 1e-6


def test_labels_for_students_are_a_choice_of_the_caller() -> None:
    data = keep_labels(load_source("fashion-small").train, 1000, seed=0)
    kept = data.targets()[data.targets() >= 0]
    assert torch.bincount(kept).tolist() == [100] * 10


def test_size_licence_and_provenance() -> None:
    folder = resources.files(embedded)
    total = sum(len(file.read_bytes()) for file in folder.iterdir() if file.is_file())
    assert total <= 4_000_000
    assert "Zalando" in (folder / "LICENSE").read_text()
    assert embedded.provenance()["licence"].startswith("MIT")
