"""D10: xingyizhou/CenterNet#233, Lightning-AI/pytorch-lightning#20412.

Every worker process augmented alike, and every epoch again: the data set held a generator of its own, of
which each worker got a copy. Our views are functions of sample and view; one of the user's is found out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.data.adapt import find_unsteady
from limbeck.data.dataset import ArrayDataset, Dataset, as_dataset
from limbeck.data.loader import Loader
from limbeck.data.views import Views
from tests.check.faults import checked

NAMES = ["crop", "flip", "resized-crop", "colour", {"name": "erase", "probability": 1.0}, "randaugment"]


def same_pictures() -> Dataset:
    """Eight equal pictures: what differs is the augmentation alone."""
    return ArrayDataset(torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(8, -1, -1, -1))


def seen(data: Dataset, view: int, **given: Any) -> dict[int, Tensor]:
    """The pixels of every sample, over all processes."""
    world = given.pop("world", 1)
    ranks = [Loader(data, 4, seed=0, view=view, world=world, rank=rank, **given) for rank in range(world)]
    return {
        int(index): pixels
        for loader in ranks
        for micros in loader
        for micro in micros
        for index, pixels in zip(micro["index"], micro["inputs"], strict=True)
    }


@pytest.mark.parametrize("entry", NAMES, ids=str)
def test_views_are_equal_for_any_workers_and_processes_and_differ_otherwise(entry: Any) -> None:
    data = same_pictures().augment(Views(0, [entry]))
    first = seen(data, 1)
    for given in (
        {"num_workers": 1},
        {"num_workers": 2},
        {"world": 2},
        {"world": 2, "micro_batches": 2, "epoch": 3},
        {"shuffle": False, "start_batch": 0},
    ):
        other = seen(data, 1, **given)
        assert all(torch.equal(first[index], other[index]) for index in range(8))
    second = seen(data, 2, num_workers=2)
    least = 2 if entry == "flip" else 5
    assert len({tuple(first[index].flatten().tolist()) for index in range(8)}) >= least  # by sample
    assert any(not torch.equal(first[index], second[index]) for index in range(8))  # by view


class OwnGenerator:
    """As people write it."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return torch.full((1, 2, 2), float(self.generator.random())), 0


def test_a_generator_of_the_users_is_found_out() -> None:
    data = as_dataset(OwnGenerator(np.random.default_rng(0)))
    workers = Loader(data, 4, seed=0, shuffle=False, num_workers=2)
    drawn = [micro["inputs"][:, 0, 0, 0].tolist() for micros in workers for micro in micros]
    assert drawn[0] == drawn[1]  # what the reports saw: each worker has the same copy
    assert find_unsteady(data) == list(range(8))
    assert (
        find_unsteady(as_dataset(OwnGenerator(np.random))) == []
    )  # global ones are seeded by sample and view
    assert find_unsteady(same_pictures().augment(Views(0, ["crop", "randaugment"]))) == []
    assert find_unsteady(ArrayDataset({"a": torch.rand(3, 2), "b": torch.rand(3, 4)}), view=0) == []


def test_check_reports_a_transform_with_a_generator_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = checked("generator-of-its-own", tmp_path)
    assert "K208" in [each.code for each in done.findings], done.text()
