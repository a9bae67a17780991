"""Whether a network answers a sample always in the same way: asked again, and beside other samples."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from limbeck._fast.comparison import device_of, difference, tensors, tolerance
from limbeck._taps.survey import survey, undisturbed
from limbeck.errors import RequestError
from limbeck.record import Record
from limbeck.task import Task
from limbeck.task.batches import first_samples, num_samples

_SAME = 1e-5  # relative difference of two answers to the same samples that rounding explains
_FEW = 2  # samples that are looked at to find a layer


def check_steady(
    answer: Callable[[Mapping[str, Any]], Record], model: nn.Module, batch: Mapping[str, Any], task: Task
) -> None:
    """Refuses a teacher whose answers cannot be kept, see `Teacher.check_steady`.

    Args:
        answer: asks the teacher.
        model: its network, in eval mode.
        batch: some samples in normal form, where it is.
        task: how they enter it.
    """
    said = answer(batch)
    found = difference(said, answer(batch))
    if found > _SAME:
        raise RequestError(
            f"the teacher answers the same samples in two ways, {found:.1g} of the largest value apart: "
            f"something in its forward is random in eval mode{_first_random(model, batch, task)}",
            fix="dropout and noise in training mode alone, as F.dropout(x, p, training=self.training)",
        )
    found = _beside_others(said, answer, batch)
    if found > tolerance(said):
        raise RequestError(
            f"the teacher answers a sample in another way beside other samples, {found:.1g} of the largest "
            "value apart: its forward mixes the samples of a batch",
            fix="batch norms with running statistics, as F.batch_norm(..., training=self.training)",
        )


def _beside_others(
    said: Record, answer: Callable[[Mapping[str, Any]], Record], batch: Mapping[str, Any]
) -> float:
    """How far the answers to the first half of a batch are from those within the whole of it."""
    number = num_samples(batch)
    if number < 2:
        return 0.0
    alone = tensors(answer(first_samples(batch, number // 2)))
    pairs = zip(tensors(said), alone, strict=True)
    # Values without a row for each sample are left out.
    rows = [(a[: len(b)], b) for a, b in pairs if a.ndim and len(a) == number and len(b) == number // 2]
    return max((difference(a, b) for a, b in rows), default=0.0)


def _first_random(model: nn.Module, batch: Mapping[str, Any], task: Task) -> str:
    """Names the first layer that returns something else with other random numbers; empty where none does."""
    few = first_samples(batch, _FEW)
    with undisturbed(model, training=False) as calm:
        one = survey(calm, few, task)
        torch.rand(1, device=device_of(calm)), random.random(), np.random.random()  # the next are others
        other = survey(calm, few, task)
    for a, b in zip(one.events, other.events, strict=False):
        if a.value is not None and b.value is not None and difference(a.value, b.value) > _SAME:
            return f", first seen in what {a.name or 'it'} ({type(a.module).__name__}) returns"
    return ""
