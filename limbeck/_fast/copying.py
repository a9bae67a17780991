"""The private copy of a teacher that computes faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._fast.folding import fold
from limbeck._fast.layout import channels_last, plain_pictures, turned_pictures
from limbeck._fast.steps import Fast
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
        self._watched = [*model.parameters(), *model.buffers()]
        self._versions = _versions(self._watched)
        network = untapped(model).eval().requires_grad_(False)
        if fast.fold:
            fold(network, batch, task, paths)
        if fast.channels_last:
            channels_last(network)
        self.taps = Taps(network, paths, task=task, trainable=False)
        if fast.compile:
            network.compile()

    @property
    def is_stale(self) -> bool:
        """Whether a weight of the teacher was changed in place, or moved, since it was copied."""
        return self._versions != _versions(self._watched)

    def __call__(self, batch: Mapping[str, Any], *, output: bool) -> Record:
        """As `Teacher`: a record without gradient."""
        batch = turned_pictures(batch) if self.fast.channels_last else plain_pictures(batch)
        kind = next(iter(_tensors(batch["inputs"]))).device.type
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=self.fast.bf16):
            record = self.taps(batch, output=output)
        return Record(_wide(record.output), {path: _wide(value) for path, value in record.layers.items()})


def _versions(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Where each weight lies and how often it was changed in place."""
    return [(each.data_ptr(), each._version) for each in tensors]


def _tensors(inputs: Any) -> list[Tensor]:
    return list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]


def _wide(value: Any) -> Any:
    """Floating values in float32 and in the usual layout, as the plain teacher gives them."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float().contiguous()
    return value
