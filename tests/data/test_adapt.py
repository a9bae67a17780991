from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from limbeck.data.adapt import MapDataset, seeded
from limbeck.data.dataset import as_dataset
from limbeck.data.loader import Loader
from limbeck.errors import RequestError, RunError


class Noisy:
    """A set as people write it: targets listed, and a transform that draws from all generators."""

    def __init__(self, number: int = 8) -> None:
        self.targets = [i % 3 for i in range(number)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(2) + np.random.rand() + random.random()
        return noise + number, self.targets[number]


def test_draws_of_a_transform_belong_to_sample_and_view() -> None:
    data = as_dataset(Noisy())
    whole = data.batch(torch.arange(8), 1)
    assert torch.equal(data.batch([5], 1)["inputs"][0], whole["inputs"][5])
    assert not torch.equal(data.batch([5], 2)["inputs"][0], whole["inputs"][5])
    assert whole["targets"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert data.targets().tolist() == whole["targets"].tolist()
    for workers in (1, 2):
        loader = Loader(data, 4, seed=0, view=1, num_workers=workers)
        for got in loader:
            assert torch.equal(got[0]["inputs"], whole["inputs"][got[0]["index"]])


def test_global_generators_continue_as_if_nothing_was_read() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    as_dataset(Noisy()).batch([1, 2], 1)
    with seeded(1):
        torch.rand(1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
    assert states[2] == random.getstate()


def test_listed_targets_are_taken_only_if_they_are_the_samples_own() -> None:
    class Shifted(Noisy):
        def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(1), self.targets[number] + 10

    assert as_dataset(Shifted()).targets().tolist() == [10, 11, 12, 10, 11, 12, 10, 11]
    assert as_dataset(Subset(Noisy(), [2, 4])).targets().tolist() == [2, 1]  # type: ignore[arg-type]
    given = MapDataset(Noisy(), targets=torch.full((8,), 7))
    assert given.targets().tolist() == [7] * 8
    assert given.batch([0])["targets"].tolist() == [7]


def test_tensor_data_sets_are_held_in_memory() -> None:
    data = as_dataset(TensorDataset(torch.rand(4, 2), torch.tensor([0, 1, 0, 1])))
    assert data.targets().tolist() == [0, 1, 0, 1]
    assert not data.augmented


def test_pictures_mappings_and_bare_inputs() -> None:
    class Items(list[Any]):
        pass

    picture = Image.new("RGB", (5, 4), (255, 0, 0))
    data = as_dataset(MapDataset(Items([(picture, 1), (picture, 0)])))
    batch = data.batch([0, 1])
    assert batch["inputs"].shape == (2, 3, 4, 5)
    assert batch["inputs"][0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    tokens = MapDataset(Items([{"input_ids": torch.tensor([1, 2]), "label": 1}]))
    assert tokens.batch([0])["inputs"]["input_ids"].tolist() == [[1, 2]]
    assert tokens.targets().tolist() == [1]
    bare = MapDataset(Items([torch.ones(2), torch.zeros(2)]))
    assert bare.batch([1])["targets"].tolist() == [-1]
    real = MapDataset(Items([(torch.ones(2), 0.5)]))
    assert real.batch([0])["targets"].dtype == torch.float32


def test_samples_of_several_sizes_are_refused_with_their_shapes() -> None:
    data = MapDataset([(torch.ones(2), 0), (torch.ones(3), 1)])
    with pytest.raises(RequestError, match=r"\[2\], \[3\]"):
        data.batch([0, 1])


def test_a_broken_sample_is_named() -> None:
    class Broken(Noisy):
        def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
            if number == 6:
                raise OSError("disk gone")
            return super().__getitem__(number)

    with pytest.raises(RunError, match=r"sample 6 of Broken cannot be read: OSError: disk gone"):
        as_dataset(Broken()).batch([5, 6])


def test_fingerprint_of_a_map_set_is_its_content() -> None:
    first, second, other = as_dataset(Noisy()), as_dataset(Noisy()), as_dataset(Noisy(7))
    assert first.fingerprint() == second.fingerprint() != other.fingerprint()
