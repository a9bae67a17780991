"""The private copy of a teacher that computes faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._fast.comparison import device_of
from limbeck._fast.folding import fold
from limbeck._fast.halving import halve
from limbeck._fast.layout import channels_last, plain_pictures, turned_pictures
from limbeck._fast.steps import Fast
from limbeck._taps.survey import version_of
from limbeck.record import Record
from limbeck.taps import Taps, untapped
from limbeck.task import Task


class Copy:
    """A copy of a teacher in a faster form; it answers as the teacher does, in float32.

    Args:
        model: the teacher, in eval mode; it is only read.
        batch: some samples, where the teacher is: they show which layers can be folded.
        task: how they enter it.
        paths: the layers that are read.
        fast: the steps.
    """

    def __init__(
        self, model: nn.Module, batch: Mapping[str, Any], task: Task, paths: Sequence[str], fast: Fast
    ) -> None:
        self.fast = fast
        self._model = model
        self._weights = _weights(model)
        self._versions = _versions(self._weights)
        network = untapped(model).eval().requires_grad_(False).float()
        if fast.fold:
            fold(network, batch, task, paths)
        if fast.channels_last:
            channels_last(network)
        if fast.bf16:
            halve(network, turned_pictures(batch) if fast.channels_last else batch, task)
        self._device = device_of(network)
        self.taps = Taps(network, paths, task=task, trainable=False)
        if fast.compile:
            network.compile()

    @property
    def is_stale(self) -> bool:
        """Whether a weight of the teacher was changed in place, moved or replaced since it was copied."""
        now = _weights(self._model)
        same = len(now) == len(self._weights) and all(map(_is, now, self._weights))
        return not same or self._versions != _versions(now)

    def __call__(self, batch: Mapping[str, Any], *, output: bool) -> Record:
        """As `Teacher`: a record without gradient."""
        batch = turned_pictures(batch) if self.fast.channels_last else plain_pictures(batch)
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self.fast.bf16):
            record = self.taps(batch, output=output)
        return Record(_wide(record.output), {path: _wide(value) for path, value in record.layers.items()})


def _weights(model: nn.Module) -> list[Tensor]:
    """All parameters and buffers."""
    return [
        weight
        for module in model.modules()
        for held in (module._parameters, module._buffers)
        for weight in held.values()
        if weight is not None
    ]


def _versions(weights: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Where each weight lies and how often it was changed in place."""
    return [(each.data_ptr(), version_of(each)) for each in weights]


def _is(one: Tensor, other: Tensor) -> bool:
    return one is other


def _wide(value: Any) -> Any:
    """Floating values in float32 and in the usual layout, as the plain teacher gives them."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float().contiguous()
    if isinstance(value, Mapping):
        return {name: _wide(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_wide(item) for item in value)
    return value
