"""Pictures with their channels last in memory: the form in which convolutions are quickest."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._fast.comparison import FAILURES, device_of, difference, first_line, tolerance
from limbeck._taps.survey import beside, undisturbed
from limbeck.taps import untapped
from limbeck.task import Task
from limbeck.task.batches import first_samples

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
    turned = copy.deepcopy(network)
    for train in (False, True) if training else (False,):
        plain = _outputs(network, few, task, train)
        try:
            said = _outputs(channels_last(turned), turned_pictures(few), task, train)
        except FAILURES as error:
            return f"fails in it ({first_line(error)})"
        found = difference(plain, said)
        # Where chance has a part in training, another layout draws for other places.
        if found > tolerance(plain) and not (train and _draws(network, few, task, plain)):
            return f"differs in it by {found:.1g}"
    return None


def _outputs(network: nn.Module, batch: Mapping[str, Any], task: Task, training: bool) -> Any:
    """What a network says; in training also the gradient of all its weights, as one vector."""
    with undisturbed(network, training=training) as calm:
        output = task.call(calm, beside(calm, batch))
        if not (training and isinstance(output, Tensor) and output.requires_grad):
            return output
        calm.zero_grad()
        output.float().square().mean().backward()  # type: ignore[no-untyped-call]
        # One vector, as single weights may have a gradient of zero but for rounding: a bias before a norm.
        gradient = [weight.grad.flatten().float() for weight in calm.parameters() if weight.grad is not None]
        calm.zero_grad()
        return [output.detach(), torch.cat(gradient)]


def _draws(network: nn.Module, batch: Mapping[str, Any], task: Task, said: Any) -> bool:
    """Whether a network in training says something else with other random numbers."""
    with undisturbed(network, training=True) as calm:
        torch.rand(1, device=device_of(calm))  # the next numbers are others
        return difference(said, _outputs(network, batch, task, training=True)) > tolerance(said)


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
