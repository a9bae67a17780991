"""Pictures with their channels last in memory: the form in which convolutions are quickest."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._fast.comparison import difference, first_line
from limbeck._taps.survey import undisturbed
from limbeck.taps import untapped
from limbeck.task import Task
from limbeck.task.batches import first_samples

#: Layouts may add in another order: the largest difference, relative to the largest value.
TOLERANCE = 1e-4
_FEW = 4  # samples that are looked at


def refuses_channels_last(
    model: nn.Module, batch: Mapping[str, Any], task: Task, *, training: bool = False
) -> str | None:
    """Why a network cannot compute in channels_last; None where it can.

    Args:
        model: the network; it is left as it was.
        batch: a batch in normal form.
        task: how it enters the network.
        training: the backward pass is looked at too, as for a student.

    Returns:
        "takes no pictures", that its forward or backward fails, or that its values differ; in a few words.
    """
    few = first_samples(batch, _FEW)
    if not has_pictures(few):
        return "takes no pictures"
    network = untapped(model)
    plain = _outputs(network, few, task, training)
    try:
        turned = _outputs(channels_last(copy.deepcopy(network)), turned_pictures(few), task, training)
    except (RuntimeError, ValueError) as error:  # torch says both of what a layout cannot do
        return f"fails in it ({first_line(error)})"
    found = difference(plain, turned)
    return f"differs in it by {found:.1g}" if found > TOLERANCE else None


def _outputs(network: nn.Module, batch: Mapping[str, Any], task: Task, training: bool) -> Any:
    with undisturbed(network, training=training) as calm:
        output = task.call(calm, batch)
        if training and isinstance(output, Tensor) and output.requires_grad:
            output.float().square().mean().backward()  # type: ignore[no-untyped-call]
            gradients = [p.grad for p in calm.parameters() if p.grad is not None]
            calm.zero_grad()
            return [output.detach(), *gradients]
        return output


def channels_last(network: nn.Module) -> nn.Module:
    """The same network, its 4-d weights in channels_last."""
    network.to(memory_format=torch.channels_last)
    return network


def has_pictures(batch: Mapping[str, Any]) -> bool:
    """Whether floating inputs of four dimensions enter."""
    inputs = batch["inputs"]
    values = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    return any(_is_picture(value) for value in values)


def turned_pictures(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch whose pictures lie in channels_last."""
    return _in_format(batch, torch.channels_last)


def plain_pictures(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch whose pictures are contiguous, wherever it comes from."""
    return _in_format(batch, torch.contiguous_format)


def _in_format(batch: Mapping[str, Any], form: torch.memory_format) -> dict[str, Any]:
    inputs = batch["inputs"]
    if isinstance(inputs, Mapping):
        return {**batch, "inputs": {name: _laid(value, form) for name, value in inputs.items()}}
    return {**batch, "inputs": _laid(inputs, form)}


def _is_picture(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def _laid(value: Any, form: torch.memory_format) -> Any:
    return value.contiguous(memory_format=form) if _is_picture(value) else value
