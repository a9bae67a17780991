"""Data sources for the tests of the benchmark, as `module:function`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality import cifar_sheets

CLASSES = 4


def tiny() -> dict[str, Any]:
    """Four classes of 16x16 pictures: a bright quarter in noise; 80 for training, 40 for test."""
    return {"train": _part(80, 1), "test": _part(40, 2), "classes": ["a", "b", "c", "d"]}


def _part(number: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 120, (number, 1, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(number) % CLASSES
    for place, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        pixels[place, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 100
    return pixels, labels


def few_of_cifar(root: Path | None = None) -> dict[str, Any]:
    """CIFAR-100 as the benchmark reads it, but 200 pictures for training and 100 for test."""
    read = cifar_sheets.load(root)
    pixels, labels = read["train"]
    test_pixels, test_labels = read["test"]
    return {
        "train": (pixels[:200].clone(), labels[:200].clone()),
        "test": (test_pixels[:100].clone(), test_labels[:100].clone()),
        "classes": read["classes"],
    }
