"""The teacher: a frozen source of records. Same call, same result."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from limbeck._clock import part
from limbeck._fast.choosing import choose
from limbeck._fast.copying import Copy
from limbeck._fast.layout import plain_pictures
from limbeck._fast.steadiness import check_steady
from limbeck._fast.steps import Fast
from limbeck.record import Record
from limbeck.taps import Taps
from limbeck.task import Classification, Task
from limbeck.task.batches import device_of_inputs, first_samples

_COMPARED = 64  # samples on which a fast form is compared with the plain teacher

_log = logging.getLogger(__name__)


class Teacher:
    """A trained network that only answers: in eval mode, without gradient to its weights.

    It is not a module: no optimizer, state dict or `.train()` of a method that holds it ever reaches it.
    It goes where its inputs are and computes in the precision of its own weights, autocast or not.

    Args:
        model: the trained network. Its parameters stop requiring gradient; layers of it may still be used
            in a graph of the caller's (gradient flows through, not to, its weights).
        task: how a batch enters it; classification unless given.
        paths: the layers to record, as in `Taps`.
        fast: the steps that make it answer faster, in float32: "fold" (batch norms into the layers before
            them), "channels_last", "bf16", "compile". They are taken on a private copy, made at the
            first call and again when a weight of `model` was changed in place or replaced (a change through
            `.data` is not seen); `model` stays as it is. Each step is compared with the plain teacher on that
            batch first, and left out with a warning where it fails, or where the output or a layer that is
            read differs by more than 1e-4 of its largest value (5e-3 on a GPU, whose products are rounded;
            2e-2 with "bf16", and no more than 5 % of the answers may name another class; of a teacher in half
            precision what its own rounding explains). A compiled copy
            computes to its end, whether `output` is asked for or not.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        task: Task | None = None,
        paths: Sequence[str] = (),
        fast: Fast | Sequence[str] = (),
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.task = task or Classification()
        self.paths = tuple(paths)
        self.taps = Taps(model, self.paths, task=self.task, trainable=False)
        self.fast = fast if isinstance(fast, Fast) else Fast.of(fast)
        self._copy: Copy | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a file of it holds: the faster copy is made anew."""
        return {**self.__dict__, "_copy": None}

    def reading(self, paths: Sequence[str], *, task: Task | None = None) -> Teacher:
        """The same network read at other layers."""
        return Teacher(self.model, task=task or self.task, paths=paths, fast=self.fast)

    def __call__(self, batch: Any, *, output: bool = True) -> Record:
        """Answers one batch.

        Args:
            batch: a batch in any form that the task takes.
            output: false stops after the last layer that is read.

        Returns:
            A record without gradient; values in the precision of the teacher, with `fast` in float32.
        """
        batch = self.task.batch(batch)
        self._settle(device_of_inputs(batch["inputs"]))
        with part("teacher"):
            quick = self._fast_copy(batch) if self.fast.names() else None
            return self._plainly(batch, output=output) if quick is None else quick(batch, output=output)

    def _plainly(self, batch: Mapping[str, Any], *, output: bool = True) -> Record:
        """The answer of the network itself, the same bits in whatever layout the pictures come."""
        batch = plain_pictures(batch)
        with torch.no_grad(), torch.autocast(device_of_inputs(batch["inputs"]).type, enabled=False):
            return self.taps(batch, output=output)

    def _fast_copy(self, batch: Mapping[str, Any]) -> Copy | None:
        """The copy that answers; what the teacher cannot do is found out on some samples of this batch."""
        if self._copy is None or self._copy.is_stale:
            self._copy = None
            # What is compiled is compiled for a size of batch, so for that of the training.
            some = batch if self.fast.compile else first_samples(batch, _COMPARED)
            # The copy is for calls outside of inference mode, and outside of a loop's autocast, too.
            with (
                torch.inference_mode(False),
                torch.autocast(device_of_inputs(some["inputs"]).type, enabled=False),
            ):
                plain = self._plainly(some)
                self._copy, notes = choose(self.model, some, self.task, self.paths, self.fast, plain)
            for note in notes:
                _log.warning("%s", note)
            self.fast = self._copy.fast if self._copy else Fast()
        return self._copy

    def check_steady(self, batch: Any) -> None:
        """Refuses a teacher whose answers cannot be kept: they are not the same again.

        Args:
            batch: some samples, in any form that the task takes.

        Raises:
            RequestError: the plain network answers the same samples in two ways, as something in its forward
                is random in eval mode (the first such layer is named); or a sample in another way beside
                other samples, as with batch norms that have no running statistics.
        """
        batch = self.task.batch(batch)
        self._settle(device_of_inputs(batch["inputs"]))
        check_steady(self._plainly, self.model, batch, self.task)

    def _settle(self, device: torch.device) -> None:
        """Back to eval mode, no gradient and the device of the inputs, whatever happened meanwhile."""
        first = next(self.model.parameters(), None)
        if first is not None and first.device != device:
            self.model.to(device)
        if any(module.training for module in self.model.modules()):
            self.model.eval()
        if any(parameter.requires_grad for parameter in self.model.parameters()):
            self.model.requires_grad_(False)
