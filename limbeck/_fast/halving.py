"""Weights of products in bfloat16, for autocast: the same values, not rounded anew at every call."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from limbeck._fast.comparison import device_of
from limbeck._taps.survey import undisturbed
from limbeck.task import Task
from limbeck.task.batches import first_samples

#: Layers whose products autocast computes in bfloat16.
_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def halve(network: nn.Module, batch: Mapping[str, Any], task: Task) -> int:
    """Rounds the weights of convolutions and linear layers as autocast does, in place.

    Layers that are called where a network turns autocast off keep theirs, and so do those that it does not
    call: someone else may read them.

    Args:
        network: in eval mode; it answers under autocast to bfloat16 from now on.
        batch: a batch in normal form, where the network is.
        task: how it enters the network.

    Returns:
        The number of layers whose weights were rounded.
    """
    kind = device_of(network).type
    under, outside = set[nn.Module](), set[nn.Module]()

    def before(layer: nn.Module, inputs: Any) -> None:
        (under if torch.is_autocast_enabled(kind) else outside).add(layer)

    with undisturbed(network, training=False) as calm, ExitStack() as hooks:
        for layer in calm.modules():
            if type(layer) in _PRODUCTS:
                hooks.callback(layer.register_forward_pre_hook(before).remove)
        with torch.autocast(kind, torch.bfloat16):
            task.call(calm, first_samples(batch, 2))
    for layer in under - outside:
        for name, weight in layer._parameters.items():
            if weight is not None and weight.dtype is torch.float32:
                layer._parameters[name] = nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
    return len(under - outside)
