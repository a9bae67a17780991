"""Tiny tasks, networks and data, one kind of output each, for the contract suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.dataset import ArrayDataset, Dataset
from limbeck.data.views import Views, view_number
from limbeck.errors import RequestError
from limbeck.method import Card
from limbeck.task import Classification, MultiLabel, Regression, Task, Tokens

CLASSES, SIZE, LENGTH, WORDS = 4, 8, 6, 7


class Pictures(nn.Module):
    """A convolutional network with three stages of halving size and the head `fc`."""

    def __init__(self, outputs: int, *, width: int, statistics: bool, dropout: float) -> None:
        super().__init__()
        self.layer1 = _stage(3, width, 1, statistics)
        self.layer2 = _stage(width, 2 * width, 2, statistics)
        self.layer3 = _stage(2 * width, 2 * width, 2, statistics)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] to outputs [B, K]."""
        features: Tensor = self.layer3(self.layer2(self.layer1(inputs)))
        return self.fc(self.dropout(features.mean((2, 3))))  # type: ignore[no-any-return]


def _stage(inputs: int, outputs: int, stride: int, statistics: bool) -> nn.Sequential:
    norm = [nn.BatchNorm2d(outputs)] if statistics else []
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), *norm, nn.ReLU())


class Words(nn.Module):
    """An embedding, two layers over positions, and a head on each."""

    def __init__(self, *, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, width)
        self.layer1 = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.layer2 = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, WORDS)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids [B, L] to logits [B, L, V]."""
        return self.fc(self.dropout(self.layer2(self.layer1(self.embedding(input_ids)))))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Example:
    """A task with networks and data that can be told apart."""

    task: Task
    statistics: bool
    dropout: float

    def network(self, seed: int) -> nn.Module:
        """A network with random weights; teachers (seed 100 and more) are wider."""
        torch.manual_seed(seed)
        width = 8 if seed >= 100 else 6
        if self.task.kind == "tokens":
            return Words(width=width, dropout=self.dropout)
        outputs = 2 if self.task.kind == "values" else CLASSES
        return Pictures(outputs, width=width, statistics=self.statistics, dropout=self.dropout)

    def data(
        self,
        samples: int = 24,
        *,
        seed: int = 0,
        double: bool = False,
        unlabelled: bool = False,
        augment: Sequence[str] = (),
    ) -> Dataset:
        """Samples with their targets; the class is the brightest quarter of a picture, the id itself.

        Where there are several views of a picture in a batch, each is turned by its place.
        """
        generator = torch.Generator().manual_seed(seed)
        if self.task.kind == "tokens":
            ids = torch.randint(0, WORDS, (samples, LENGTH), generator=generator)
            return ArrayDataset({"input_ids": ids}, (ids + 1) % WORDS)
        classes = torch.arange(samples) % CLASSES
        pixels = torch.rand(samples, 3, SIZE, SIZE, generator=generator) * 0.3
        for sample, label in enumerate(classes.tolist()):
            rows, columns = divmod(label, 2)
            pixels[sample, rows, rows * 4 : rows * 4 + 4, columns * 4 : columns * 4 + 4] += (
                0.3 + 0.3 * columns
            )
        targets = self._targets(classes)
        if unlabelled:
            targets[1::3] = float("nan") if targets.is_floating_point() else -1
        inputs = pixels.double() if double else pixels
        targets = targets.double() if double and targets.is_floating_point() else targets
        return ArrayDataset(inputs, targets).augment(Views(0, [*augment, "rotate"]))

    def _targets(self, classes: Tensor) -> Tensor:
        if self.task.kind == "classes":
            return classes
        if self.task.kind == "labels":
            return torch.nn.functional.one_hot(classes, CLASSES)
        return torch.stack([classes.float() / CLASSES, 1 - classes.float() / CLASSES], 1)

    def batch(self, samples: int = 8, *, views: int = 1) -> dict[str, Any]:
        """The first samples, each in some views, rows that follow each other."""
        places = torch.arange(views).repeat(samples)
        return self.data().batch(
            torch.arange(samples).repeat_interleave(views), view_number(torch.zeros_like(places), places)
        )


def example_for(card: Card, *, statistics: bool = False, dropout: float = 0.0) -> Example:
    """An example of the first kind of task of a method.

    Args:
        card: of the method.
        statistics: networks with batch statistics.
        dropout: of their last layer.

    Raises:
        RequestError: the contract has no data for any of the kinds.
    """
    tasks: dict[str, Task] = {
        "classes": Classification(CLASSES),
        "labels": MultiLabel(CLASSES),
        "values": Regression(),
        "tokens": Tokens(),
    }
    for kind in card.tasks:
        if kind in tasks:
            return Example(tasks[kind], statistics, dropout)
    raise RequestError(
        f"the contract has data for {', '.join(tasks)}; {card.slug} is for {', '.join(card.tasks)}"
    )
