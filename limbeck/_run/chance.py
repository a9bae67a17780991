"""Whether a teacher that was read from a file knows anything about the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck._show import figures
from limbeck.data.dataset import Dataset
from limbeck.engine.evaluation import statistics
from limbeck.errors import RequestError
from limbeck.task import Task

_SAMPLES = 512  # that are looked at
_CLEAR = 0.5  # share of right answers that another order of classes must give to be named


@dataclass(frozen=True)
class Look:
    """How a network answers some samples with known classes.

    Args:
        target: the classes [N]; `predicted`: the answers [N].
    """

    target: Tensor
    predicted: Tensor

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.target)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float((self.target == self.predicted).float().mean())

    @property
    def chance(self) -> float:
        """Share that naming the most frequent class would get right."""
        return float(torch.bincount(self.target).max()) / self.samples

    @property
    def bound(self) -> float:
        """Up to here an accuracy is within what chance gives."""
        return self.chance + 2 * math.sqrt(self.chance * (1 - self.chance) / self.samples)

    def renamed(self) -> float:
        """The accuracy if every answer meant the class that it is given most often for, each class once.

        What an answer means is told by one half of the samples and tried on the other, both ways.
        """
        place = torch.empty(self.samples, dtype=torch.int64)
        place[self.target.argsort(stable=True)] = torch.arange(self.samples)
        halves = [place % 2 == half for half in (0, 1)]  # each class in both
        right = 0
        for told, tried in (halves, halves[::-1]):
            meant = Look(self.target[told], self.predicted[told]).meanings()
            answers = [meant.get(answer, -1) for answer in self.predicted[tried].tolist()]
            right += int((torch.tensor(answers) == self.target[tried]).sum())
        return right / self.samples

    def meanings(self) -> dict[int, int]:
        """By answer the class that it is given most often for, each class once, the surest first."""
        size = int(torch.cat([self.target, self.predicted]).max()) + 1
        table = torch.bincount(self.predicted * size + self.target, minlength=size * size).reshape(size, size)
        found: dict[int, int] = {}
        for answer in table.max(1).values.argsort(descending=True).tolist():
            meant = int(table[answer].argmax())
            if table[answer, meant] and meant not in found.values():
                found[answer] = meant
        return found


def look(network: nn.Module, data: Dataset, task: Task) -> Look | None:
    """How a network answers some samples; None where the task has no classes, or no sample a label."""
    if task.kind != "classes" or len(data) == 0:
        return None
    found = statistics(network, data.subset(some(data)), task)
    known = found["target"] >= 0
    return Look(found["target"][known], found["predicted"][known]) if bool(known.any()) else None


def some(data: Dataset, most: int = _SAMPLES) -> Tensor:
    """At most so many positions, evenly spread, int64 [N]."""
    number = min(len(data), most)
    return torch.arange(number) * len(data) // max(number, 1)


def refuse_at_chance(network: nn.Module, data: Dataset, task: Task, where: str | None) -> None:
    """Stops for a teacher that names classes no better than the most frequent class would.

    Args:
        network: the teacher.
        data: samples with labels, some of which are looked at.
        task: only classes have a chance level.
        where: the place of its weights in the recipe.

    Raises:
        RequestError: its accuracy is within what chance gives; says if another order of classes explains it.
    """
    seen = look(network, data, task)
    if seen is None or seen.accuracy > seen.bound:
        return
    said = f"the teacher is no better than chance: {in_words(seen)}"
    best = seen.renamed()
    if best > max(seen.bound, _CLEAR):
        said += f"; with its classes in another order it would reach {figures.score('classes', best)}"
        fix = "give the data's classes the order of the teacher's, or the teacher's folder, which has names"
    else:
        fix = "other weights or another normalize; teacher.accept_chance = true goes on with it"
    raise RequestError(said, where=where, fix=fix)


def in_words(seen: Look) -> str:
    """`1.2 % of 512 samples, chance 1.0 %`."""
    shown, level = (figures.score("classes", value) for value in (seen.accuracy, seen.chance))
    return f"{shown} of {seen.samples} samples, chance {level}"
