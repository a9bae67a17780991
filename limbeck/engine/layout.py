"""How a method computes while a stage trains it: the memory format of pictures, compiled networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from limbeck._fast.layout import turned_pictures
from limbeck.engine.settings import Machine
from limbeck.method import Method

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class Arrangement:
    """Puts a method into the form that its machine computes in, and back.

    Weights of convolutions lie in channels_last; all values stay, and so do names, shapes and identity of
    the parameters. Networks are compiled in place, in stages that train all of them: where parts are frozen a
    stage often needs a part of the forward only, and each other set of frozen parts would compile anew. The
    method itself is never compiled: a weight that changes by the epoch would do the same.

    Args:
        method: on its device, in a stage.
        machine: layout and compilation.
    """

    def __init__(self, method: Method, machine: Machine) -> None:
        self._turned = _turn(method) if machine.layout == "channels_last" else []
        self._compiled = [network for network in method.learners() if _compiles(network, machine)]
        for network in self._compiled:
            network.compile()

    def undo(self) -> None:
        """Contiguous weights again, and networks that run as they are written."""
        for parameter in self._turned:
            parameter.data = parameter.data.contiguous()
        for network in self._compiled:
            network._compiled_call_impl = None
        self._turned, self._compiled = [], []


def _turn(method: nn.Module) -> Sequence[nn.Parameter]:
    """The parameters that were put into channels_last."""
    turned = []
    for module in method.modules():
        for parameter in module._parameters.values() if isinstance(module, _CONVOLUTIONS) else ():
            if parameter is not None and parameter.ndim == 4:
                last = parameter.data.contiguous(memory_format=torch.channels_last)
                if last.stride() != parameter.data.stride():
                    parameter.data = last
                    turned.append(parameter)
    return turned


def _compiles(network: nn.Module, machine: Machine) -> bool:
    whole = all(parameter.requires_grad for parameter in network.parameters())
    return machine.compile and whole and network._compiled_call_impl is None  # it may be compiled already


def arranged(batch: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """A batch whose pictures (floating inputs of four dimensions) lie as the machine wants them.

    Args:
        batch: in normal form.
        machine: its layout.
    """
    return turned_pictures(batch) if machine.layout == "channels_last" else dict(batch)
