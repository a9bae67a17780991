"""Which faster forms of a teacher are used: by rule, and each checked against the plain teacher first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._fast.comparison import difference, first_line
from limbeck._fast.copying import Copy
from limbeck._fast.layout import TOLERANCE, has_pictures
from limbeck._fast.processor import can_compile, has_amx, supports_bf16
from limbeck._fast.steps import Fast
from limbeck.errors import RequestError
from limbeck.record import Record
from limbeck.task import Task

__all__ = ["TOLERANCES", "Fast", "choose", "wanted"]

#: The largest difference of a value from the plain teacher's, relative to the largest value, by step.
TOLERANCES = {"fold": TOLERANCE, "channels_last": TOLERANCE, "bf16": 2e-2, "compile": TOLERANCE}
#: With bfloat16, the largest part of samples that may be answered with another class.
_OTHER_ANSWERS = 0.02


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
    on_gpu = torch.device(device).type == "cuda"
    return Fast(
        fold=True,
        channels_last=has_pictures(batch),
        bf16=supports_bf16(device),  # without a backward pass every network that was measured gains
        compile=long and can_compile(device) and (on_gpu or has_amx()),
    )


def choose(
    model: nn.Module, batch: Mapping[str, Any], task: Task, paths: Sequence[str], steps: Fast, plain: Record
) -> tuple[Fast, list[str]]:
    """Takes the steps one after the other, and leaves out each that the teacher cannot take.

    Args:
        model: the plain teacher, in eval mode.
        batch: some samples, where the teacher is.
        task: how they enter it.
        paths: the layers that are read.
        steps: what is tried.
        plain: what the plain teacher said of the batch.

    Returns:
        The steps that stay, and for each that is left out a sentence with the reason.
    """
    taken, notes = Fast(), []
    for field in fields(steps):
        name = field.name
        if not getattr(steps, name):
            continue
        tried = replace(taken, **{name: True})
        reason = _refused(model, batch, task, paths, tried, plain)
        if reason is None:
            taken = tried
        else:
            notes.append(f"the teacher runs without {name}: it {reason}")
    return taken, notes


def _refused(
    model: nn.Module, batch: Mapping[str, Any], task: Task, paths: Sequence[str], tried: Fast, plain: Record
) -> str | None:
    """Why a form is not used; None where it says the same within its tolerance."""
    try:
        said = Copy(model, batch, task, paths, tried)(batch, output=True)
    except (RuntimeError, ValueError, RequestError) as error:  # of torch, and of taps that find no layer
        return f"fails with it ({first_line(error)})"
    tolerance = max(TOLERANCES[name] for name in tried.names())
    found = difference(plain, said)
    if found > tolerance:
        return f"answers differently by {found:.1g} of the largest value, allowed {tolerance:g}"
    if tried.bf16 and isinstance(plain.output, Tensor) and plain.output.ndim > 1:
        others = (plain.output.argmax(-1) != said.output.argmax(-1)).double().mean().item()
        if others > _OTHER_ANSWERS:
            return f"names other classes for {others:.1%} of {len(plain.output)} samples"
    return None
