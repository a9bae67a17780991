"""Whether a network gains by low precision: a rule over its layers, so that two runs decide the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from limbeck._fast.processor import name_of_bf16, supports_bf16
from limbeck._taps.survey import survey
from limbeck.task import Task
from limbeck.task.batches import first_samples

#: Floating-point operations for each number that the layers write. Below it a step moves numbers more than
#: it multiplies, and bfloat16 has nothing to speed up. See docs/decisions/0012-precision-by-rule.md.
_INTENSITY = 128
_FEW = 4  # samples that are looked at


def gains_from_bf16(
    model: nn.Module, batch: Mapping[str, Any], task: Task, device: torch.device | str
) -> tuple[bool, str]:
    """Whether a network is faster in bfloat16 on a device, and why, in words for a plan.

    Args:
        model: the network, where it is; it is left as it was.
        batch: a batch in normal form.
        task: how it enters the network.
        device: where it will compute.
    """
    if not supports_bf16(device):
        return False, f"this {torch.device(device).type} has no bfloat16"
    found = intensity(model, batch, task)
    if found < _INTENSITY:
        return False, "bf16 gains nothing with this network"
    return True, name_of_bf16(device)


def intensity(model: nn.Module, batch: Mapping[str, Any], task: Task) -> float:
    """Floating-point operations of a forward for each number that a layer returns."""
    seen = survey(model, first_samples(batch, _FEW), task)
    values = [event.value for event in seen.events if not any(event.module.children())]
    written = sum(value.numel() for value in values if value is not None)
    return seen.flops / max(written, 1)
