"""Which faster forms of a teacher are used: by rule, and each checked against the plain teacher first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._fast.comparison import FAILURES, difference, first_line, tolerance
from limbeck._fast.copying import Copy
from limbeck._fast.layout import has_pictures
from limbeck._fast.processor import can_compile, gains_by_compiling, supports_bf16
from limbeck._fast.steps import Fast
from limbeck.record import Record
from limbeck.task import Task

__all__ = ["BF16_TOLERANCE", "Fast", "choose", "wanted"]

#: The largest difference of a value in bfloat16 from the plain teacher's, relative to the largest value: five
#: roundings to its eight bits. Of seven trained teachers for CIFAR six stood at 0.009 to 0.019, one at 0.03.
BF16_TOLERANCE = 2e-2
#: With bfloat16, the largest part of answers that may name another class. The same teachers changed 0.2 % to
#: 1.3 % of 1,024 answers, near ties, and up to 3 % within a batch. One answer may change in any case.
_OTHER_ANSWERS = 0.05


def wanted(
    model: nn.Module, batch: Mapping[str, Any], task: Task, device: torch.device | str, *, long: bool = False
) -> Fast:
    """The steps that should make a live teacher faster on a device, by rule.

    Args:
        model: the teacher.
        batch: a batch in normal form.
        task: how it enters the teacher.
        device: where it will compute.
        long: the run is long enough to pay for compiling.
    """
    kind = torch.device(device).type
    return Fast(
        fold=True,
        channels_last=has_pictures(batch) and kind in ("cpu", "cuda"),
        bf16=supports_bf16(device),  # without a backward pass every network that was measured gains
        compile=long and gains_by_compiling(device) and can_compile(device),
    )


def choose(
    model: nn.Module, batch: Mapping[str, Any], task: Task, paths: Sequence[str], steps: Fast, plain: Record
) -> tuple[Copy | None, list[str]]:
    """Takes the steps one after the other, and leaves out each that the teacher cannot take.

    Args:
        model: the plain teacher, in eval mode.
        batch: some samples, where the teacher is.
        task: how they enter it.
        paths: the layers that are read.
        steps: what is tried.
        plain: what the plain teacher said of the batch.

    Returns:
        The copy with the steps that stay, None where none does; and for each that is left out a sentence
        with the reason.
    """
    copy: Copy | None = None
    taken, notes = Fast(), []
    for name in steps.names():
        tried = replace(taken, **{name: True})
        copy = None  # one at a time: beside a large teacher there may be little room
        try:
            copy = Copy(model, batch, task, paths, tried)
            reason = _refused(copy(batch, output=True), plain, tried, batch, task)
        except FAILURES as error:
            reason = f"fails with it ({first_line(error)})"
        if reason is None:
            taken = tried
        else:
            copy = None
            notes.append(f"the teacher runs without {name}: it {reason}")
    if copy is None and taken.names():
        copy = Copy(model, batch, task, paths, taken)
    return copy, notes


def _refused(said: Record, plain: Record, tried: Fast, batch: Mapping[str, Any], task: Task) -> str | None:
    """Why a form is not used; None where it says the same within its tolerance."""
    allowed = max(tolerance(plain), BF16_TOLERANCE if tried.bf16 else 0.0)
    found = difference(plain, said)
    if found > allowed:
        return f"answers differently by {found:.2g} of the largest value, allowed {allowed:.2g}"
    if tried.bf16 and task.kind in ("classes", "tokens") and isinstance(plain.output, Tensor):
        others = _other_answers(said.output, plain.output, batch)
        changed, number = int(others.sum()), len(others)
        if changed > max(1, _OTHER_ANSWERS * number):
            return f"names other classes for {changed} of {number}, allowed {_OTHER_ANSWERS:.0%}"
    return None


def _other_answers(said: Tensor, plain: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Which answers name another class [N]; of tokens those that are no padding."""
    others = said.argmax(-1) != plain.argmax(-1)
    inputs = batch["inputs"]
    mask = batch.get("mask", inputs.get("attention_mask") if isinstance(inputs, Mapping) else None)
    if isinstance(mask, Tensor) and mask.shape == others.shape:
        return others[mask.bool()]
    return others.flatten()
