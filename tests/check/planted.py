"""Data and networks into which faults are planted; recipes name them as `tests.check.planted:NAME`."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.models.preprocessing import NAMED

CLASSES = 4

RECIPE = """name = "planted"
[data]
source = "tests.check.planted:pictures"
[teacher]
model = "tests.check.planted:levels"
weights = "teacher.safetensors"
normalize = "none"
[student]
model = "tests.check.planted:levels"
normalize = "none"
[method]
name = "kd"
temperature = 4.0
[train]
epochs = 2
batch_size = 16
[machine]
threads = 1
[export]
to = []
"""


def made(samples: int, seed: int, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Pictures [N, 3, 8, 8] in 0..1 whose brightness is their class, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    bright = 0.1 + 0.8 * labels / (classes - 1)
    noise = 0.05 * torch.randn(samples, 3, 8, 8, generator=generator)
    return (bright.view(-1, 1, 1, 1) + noise).clamp(0, 1), labels


def pictures() -> Any:
    return made(160, 0), made(80, 1), made(80, 2)


def two_classes() -> Any:
    return made(160, 0, 2), made(80, 1, 2)


def leaky() -> Any:
    """Ten validation pictures are training pictures."""
    (inputs, labels), validation = made(160, 0), made(80, 1)
    return (torch.cat([inputs, validation[0][:10]]), torch.cat([labels, validation[1][:10]])), validation


def leaky_test() -> Any:
    (inputs, labels), test = made(160, 0), made(80, 2)
    return (torch.cat([inputs, test[0][:3]]), torch.cat([labels, test[1][:3]])), made(80, 1), test


def leaky_a_little() -> Any:
    """One of 1,600 validation pictures is a training picture."""
    (inputs, labels), validation = made(1800, 0), made(1600, 1)
    return (torch.cat([inputs, validation[0][:1]]), torch.cat([labels, validation[1][:1]])), validation


def repeating_rows() -> Any:
    """Rows of few values, which repeat by chance, in every part alike."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 3, (300, 3), generator=generator).float()
    return (rows[:200], rows[:200, 0].long()), (rows[200:], rows[200:, 0].long())


def without_a_class() -> Any:
    inputs, labels = made(80, 1)
    return made(160, 0), (inputs[labels != 2], labels[labels != 2])


class Restless:
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.inputs, self.targets = made(64, 0)
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        noise = 0.01 * self.generator.standard_normal((3, 8, 8))
        return self.inputs[number] + torch.from_numpy(noise).float(), int(self.targets[number])


def restless() -> Any:
    return Restless(), made(80, 1)


def levels(num_classes: int, channels: int) -> nn.Module:
    """Tells classes by the mean of the pixels."""
    return nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(channels, num_classes))
    )


def broader(num_classes: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 64), nn.Linear(64, num_classes))


class Maps(nn.Module):
    """Feature maps, a vector, and a module that is never called."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.idle = nn.Linear(2, 2)
        self.head = nn.Linear(8, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.second(self.norm(self.first(pixels)).tanh()).tanh().mean((2, 3)))


def rows(num_classes: int, channels: int) -> nn.Module:
    return nn.Linear(channels, num_classes)


def maps(num_classes: int, channels: int) -> nn.Module:
    return Maps(num_classes, channels)


def rows_only(num_classes: int, channels: int) -> nn.Module:
    return nn.Linear(7, num_classes)


def weights(statistics: str = "none", scale: float = 100.0, classes: int = CLASSES) -> dict[str, Tensor]:
    """Of `levels`: the nearest brightness, of pixels under some statistics."""
    mean, std = (torch.tensor(values) for values in NAMED[statistics])
    bright = torch.linspace(0.1, 0.9, classes)
    centre = ((bright[:, None] - mean) / std).mean(1)
    return {
        "fc.weight": (2 * scale / 3 * centre)[:, None].expand(-1, 3).contiguous(),
        "fc.bias": -scale * centre**2,
    }


def saved(folder: Path, name: str = "teacher", state: dict[str, Tensor] | None = None) -> None:
    """Writes weights of `levels`, good ones unless given."""
    save_file({k: v.contiguous() for k, v in (state or weights()).items()}, folder / f"{name}.safetensors")
