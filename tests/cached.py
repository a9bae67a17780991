"""Data, teachers and caches for tests of the teacher cache; small shards, so that there are several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck import CachedTeacher
from limbeck._cache import shards
from limbeck.cache import Store
from limbeck.data.dataset import Dataset
from limbeck.data.views import Views
from tests.engine.tiny import cnn, pictures


def augmented(samples: int = 80, *, seed: int = 0, names: tuple[str, ...] = ("crop", "flip")) -> Dataset:
    """Pictures 3x8x8 with views."""
    return pictures(samples, seed=seed).augment(Views(0, list(names)))


def teacher_network(seed: int = 1) -> nn.Module:
    """A small convolutional network with batch statistics that are not those of its first moment."""
    network = cnn(seed=seed)
    network[1].running_mean.uniform_(-0.2, 0.2)
    return network.eval()


def cached(
    folder: Path, data: Dataset | None = None, network: nn.Module | None = None, **given: Any
) -> CachedTeacher:
    """A cache with the layer "2" beside the output."""
    given.setdefault("paths", ["2"])
    return CachedTeacher(network or teacher_network(), folder, augmented() if data is None else data, **given)


def small_shards(patch: pytest.MonkeyPatch) -> None:
    """Sixteen answers a shard."""
    patch.setattr(shards, "_RECORDS", 16)


def write(folder: Path, dtype: str = "float32") -> None:
    """Fills three views, in a process that may be killed."""
    torch.set_num_threads(1)
    cached(folder, store=Store(dtype)).fill([0, 1, 2], batch_size=8)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
