"""Whether a teacher that was read from a file knows anything about the data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck._show import figures
from limbeck.data.dataset import Dataset
from limbeck.engine.evaluation import statistics
from limbeck.errors import RequestError
from limbeck.task import Task

_SAMPLES = 512  # that are looked at
_CLEAR = 0.5  # share of right answers that another order of classes must give to be named


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
    if task.kind != "classes" or len(data) == 0:
        return
    step = max(len(data) // _SAMPLES, 1)
    found = statistics(network, data.subset(torch.arange(0, len(data), step)), task)
    known = found["target"] >= 0
    target, predicted = found["target"][known], found["predicted"][known]
    if len(target) == 0:
        return
    chance = float(torch.bincount(target).max()) / len(target)
    bound = chance + 2 * math.sqrt(chance * (1 - chance) / len(target))
    accuracy = float((target == predicted).float().mean())
    if accuracy > bound:
        return
    shown, level = figures.score("classes", accuracy), figures.score("classes", chance)
    said = f"the teacher is no better than chance: {shown} of {len(target)} samples, chance {level}"
    best = _reordered(target, predicted)
    if best > max(bound, _CLEAR):
        said += f"; with its classes in another order it would reach {figures.score('classes', best)}"
        fix = "give the data's classes the order of the teacher's, or the teacher's folder, which has names"
    else:
        fix = "other weights or another normalize; teacher.accept_chance = true goes on with it"
    raise RequestError(said, where=where, fix=fix)


def _reordered(target: Tensor, predicted: Tensor) -> float:
    """The accuracy if every answer meant the class that it is given most often for, each class once."""
    size = int(max(target.max(), predicted.max())) + 1
    table = torch.bincount(predicted * size + target, minlength=size * size).reshape(size, size)
    right, taken = 0, set()
    for answer in table.max(1).values.argsort(descending=True).tolist():
        meant = int(table[answer].argmax())
        if meant not in taken:
            taken.add(meant)
            right += int(table[answer, meant])
    return right / len(target)
