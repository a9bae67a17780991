"""Tiny data, networks and methods for tests of the engine; importable by processes that tests start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from limbeck import Card, Losses, Method, Record, Stage, Update
from limbeck.data.dataset import ArrayDataset
from limbeck.engine import Listener
from limbeck.engine.interruption import Interruption

CARD = Card(
    slug="tiny",
    title="tiny",
    paper="none",
    equations=("L = CE",),
    tasks=("classes",),
    needs=("labels",),
    teacher="none",
    deployed="the student",
    hyperparameters={},
)


def data(samples: int = 32, *, features: int = 6, classes: int = 3, seed: int = 0) -> ArrayDataset:
    """Separable rows with labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, features, generator=generator)
    truth = torch.randn(features, classes, generator=torch.Generator().manual_seed(99))
    return ArrayDataset(inputs, (inputs @ truth).argmax(1))


def pictures(samples: int = 24, *, classes: int = 3, seed: int = 0) -> ArrayDataset:
    """Random pictures 3x8x8, the class in the brightness of a channel."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % classes
    pixels = torch.randint(0, 128, (samples, 3, 8, 8), generator=generator)
    pixels[torch.arange(samples), targets] += 100
    return ArrayDataset(pixels.to(torch.uint8), targets)


def mlp(*, dropout: float = 0.0, seed: int = 0, width: int = 8) -> nn.Module:
    """A small perceptron without batch statistics."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 3))


def cnn(*, seed: int = 0) -> nn.Module:
    """A small convolutional network with batch statistics and dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8, 3),
    )


class Supervised(Method):
    """Cross-entropy alone."""

    card = CARD

    def losses(self, student: Record, teacher: Record, batch: Any) -> Losses:
        return Losses({"hard": self.task.loss(student.output, batch)}, {"hard": 1.0})


class Staged(Supervised):
    """Layer by layer, then all: three stages with other updates."""

    def stages(self) -> list[Stage]:
        layers = [module for module in self.student if list(module.parameters())]
        first = Stage("first", [Update("first", {"first": layers[0]})], scored=False)
        both = Stage("both", [Update("one", {"one": layers[0]}), Update("two", {"two": layers[-1]}, every=2)])
        return [first, both, Stage("all", [Update("student", {"student": self.student})], share=2)]


class Deciding(Supervised):
    """A chain that goes on while it gets better, at most five times."""

    def stages(self) -> Iterator[Stage]:
        best = -1.0
        for number in range(5):
            yield Stage(f"round{number}", [Update("student", {"student": self.student})], epochs=1)
            score = self.scores["student"]["accuracy"]
            if score <= best:
                return
            best = score


class StopAfter(Listener):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left, self.interruption = steps, Interruption()

    def on_step(self, event: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.interruption.signal_number = 2


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Equal names and bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
