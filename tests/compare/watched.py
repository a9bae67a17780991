"""Data and a network that note in the file SEEN who reads and sees what, a line each, with the process."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

TEST = 20  # samples of the test part
_SIDE, _CLASSES = 8, 2


def note(*words: object) -> None:
    """Adds a line."""
    with open(os.environ["SEEN"], "a", encoding="utf-8") as file:
        file.write(" ".join(map(str, [os.getpid(), *words])) + "\n")


class Watched(Dataset[tuple[Tensor, int]]):
    """Pictures of noise, brighter in class 1; those of the test part are marked in their first pixel.

    Args:
        part: its name.
        number: of samples.
    """

    def __init__(self, part: str, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        self.part = part
        self.targets = [n % _CLASSES for n in range(number)]
        self.pictures = 0.4 * torch.rand(number, 1, _SIDE, _SIDE, generator=generator)
        self.pictures += 0.1 * torch.tensor(self.targets)[:, None, None, None]
        self.pictures[:, 0, 0, 0] = 1.0 if part == "test" else 0.0
        self.pictures[:, 0, 0, 1] = 0.5

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        note("read", self.part, number)
        return self.pictures[number], self.targets[number]


def data() -> dict[str, Any]:
    """The data source."""
    sizes = {"train": 64, "validation": 32, "test": TEST}
    return {part: Watched(part, number) for part, number in sizes.items()}


class Watching(nn.Module):
    """A linear network that notes whether it trains, and how many test pictures pass through it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(_SIDE * _SIDE, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, 1, 8, 8] -> [B, K]."""
        marked = int((inputs[:, 0, 0, 0] > inputs[:, 0, 0, 1]).sum())
        note("trained" if self.training else "answered", len(inputs), marked)
        logits: Tensor = self.head(inputs.flatten(1))
        return logits


def network(num_classes: int) -> nn.Module:
    """The model."""
    return Watching(num_classes)
