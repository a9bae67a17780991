"""The teacher: a frozen source of records. Same call, same result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._clock import part
from limbeck.record import Record
from limbeck.taps import Taps
from limbeck.task import Classification, Task


class Teacher:
    """A trained network that only answers: in eval mode, without gradient to its weights.

    It is not a module: no optimizer, state dict or `.train()` of a method that holds it ever reaches it.
    It goes where its inputs are and computes in the precision of its own weights, autocast or not.

    Args:
        model: the trained network. Its parameters stop requiring gradient; layers of it may still be used
            in a graph of the caller's (gradient flows through, not to, its weights).
        task: how a batch enters it; classification unless given.
        paths: the layers to record, as in `Taps`.
    """

    def __init__(self, model: nn.Module, *, task: Task | None = None, paths: Sequence[str] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self.task = task or Classification()
        self.paths = tuple(paths)
        self.taps = Taps(model, self.paths, task=self.task, trainable=False)

    def reading(self, paths: Sequence[str], *, task: Task | None = None) -> Teacher:
        """The same network read at other layers."""
        return Teacher(self.model, task=task or self.task, paths=paths)

    def __call__(self, batch: Any, *, output: bool = True) -> Record:
        """Answers one batch.

        Args:
            batch: a batch in any form that the task takes.
            output: false stops after the last layer that is read.

        Returns:
            A record without gradient; values in the precision of the teacher.
        """
        batch = self.task.batch(batch)
        device = _device(batch["inputs"])
        self._settle(device)
        with part("teacher"), torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self.taps(batch, output=output)

    def _settle(self, device: torch.device) -> None:
        """Back to eval mode, no gradient and the device of the inputs, whatever happened meanwhile."""
        first = next(self.model.parameters(), None)
        if first is not None and first.device != device:
            self.model.to(device)
        if any(module.training for module in self.model.modules()):
            self.model.eval()
        if any(parameter.requires_grad for parameter in self.model.parameters()):
            self.model.requires_grad_(False)


def _device(inputs: Any) -> torch.device:
    while isinstance(inputs, (Mapping, list, tuple)):
        inputs = next(iter(inputs.values() if isinstance(inputs, Mapping) else inputs))
    return inputs.device if isinstance(inputs, Tensor) else torch.device("cpu")
