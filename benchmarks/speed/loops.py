"""The training loops that are compared: by hand as everyone writes it, and limbeck's own.

All read the same batches in the same order from the same source, minimise the same loss with the same
optimizer and schedule, and start from the same weights: only who trains, and how, differs.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed.turns import Told
from limbeck import CachedTeacher, fit
from limbeck._fast.gain import gains_from_bf16
from limbeck._fast.layout import refuses_channels_last
from limbeck.data.dataset import Dataset
from limbeck.data.loader import Loader
from limbeck.engine import Listener, Machine, Training
from limbeck.engine.listener import EpochEnd, StepEnd
from limbeck.methods import KD
from limbeck.task import Classification

#: The loss of all: HARD * CE + SOFT * T^2 KL.
HARD, SOFT, TEMPERATURE = 0.1, 0.9, 4.0
#: The optimizer of all.
SGD: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}

Loop = Callable[[Told], None]


@dataclass(frozen=True)
class Course:
    """What every loop trains with.

    Args:
        data: the samples; batches hold "inputs" [B, C, H, W] and "targets" [B].
        epochs: passes over them.
        batch: samples a step.
        rate: highest learning rate, from where a cosine falls step by step to 0.
        augmented: the loops by hand draw a new view every epoch; False shows the samples as they are.
    """

    data: Dataset
    epochs: int
    batch: int = 64
    rate: float = 0.01
    augmented: bool = False

    def loader(self, epoch: int) -> Loader:
        """The batches of an epoch, from 1; those that `limbeck.fit` reads too."""
        return Loader(self.data, self.batch, seed=0, epoch=epoch, view=epoch if self.augmented else 0)

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.epochs * self.loader(1).num_batches

    def read(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of an epoch's batches."""
        for (batch,) in self.loader(epoch):
            yield batch["inputs"], batch["targets"]


def autocast(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 inside, or nothing."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if wanted else contextlib.nullcontext()


def by_hand(student: nn.Module, teacher: nn.Module | None, course: Course, *, bf16: bool = False) -> Loop:
    """The loop that one writes without a library.

    Args:
        student: a copy of it trains.
        teacher: runs in full at each step; None trains the student by labels alone.
        course: data and settings.
        bf16: bfloat16 autocast of both networks, and channels_last.
    """

    def loop(told: Told) -> None:
        form = torch.channels_last if bf16 else torch.contiguous_format
        own = copy.deepcopy(student).to(memory_format=form).train()
        other = None if teacher is None else copy.deepcopy(teacher).to(memory_format=form).eval()
        optimizer = torch.optim.SGD(own.parameters(), lr=course.rate, **SGD)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, course.steps)
        for epoch in range(1, course.epochs + 1):
            for inputs, targets in course.read(epoch):
                inputs = inputs.contiguous(memory_format=form)
                with autocast(bf16):
                    logits = own(inputs)
                    if other is not None:
                        with torch.no_grad():
                            answers = other(inputs)
                loss = F.cross_entropy(logits.float(), targets)
                if other is not None:
                    loss = HARD * loss + SOFT * divergence(logits.float(), answers.float())
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                told.step(loss.item())
            told.epoch(own)

    return loop


def divergence(logits: Tensor, answers: Tensor) -> Tensor:
    """T^2 KL of softened probabilities, mean over the batch."""
    own, other = (logits / TEMPERATURE).log_softmax(1), (answers / TEMPERATURE).log_softmax(1)
    return TEMPERATURE**2 * F.kl_div(own, other, log_target=True, reduction="batchmean")


class _Listener(Listener):
    """Passes on what `limbeck.fit` tells; the loss is the mean of the epoch so far."""

    def __init__(self, told: Told, student: nn.Module) -> None:
        self.told, self.student = told, student

    def on_step(self, event: StepEnd) -> None:
        self.told.step(float(HARD * event.terms["hard"] + SOFT * event.terms["soft"]))

    def on_epoch(self, event: EpochEnd) -> None:
        self.told.epoch(self.student)


def with_limbeck(
    student: nn.Module,
    teacher: nn.Module,
    course: Course,
    folder: Path,
    machine: Machine,
    *,
    views: int | Literal["fresh"] = 0,
) -> Loop:
    """`limbeck.fit` with a teacher whose answers lie on disk.

    Args:
        student: a copy of it trains.
        teacher: answers what the cache does not hold yet.
        course: data and settings.
        folder: of the cache.
        machine: precision and layout.
        views: how many views of each sample are stored; 0 is the samples as they are.
    """

    def loop(told: Told) -> None:
        own = copy.deepcopy(student)
        cached = CachedTeacher(teacher, folder, course.data)
        method = KD(own, cached, temperature=TEMPERATURE, hard_weight=HARD, soft_weight=SOFT)
        settings = Training(
            epochs=course.epochs, batch_size=course.batch, learning_rate=course.rate, optimizer_options=SGD
        )
        listener = _Listener(told, own)
        fit(method, course.data, settings=settings, views=views, listener=listener, machine=machine)

    return loop


def by_rule(student: nn.Module, course: Course) -> tuple[Machine, str]:
    """What limbeck computes in where a recipe says "auto", but for compiling, and why."""
    task, batch = Classification(), course.data.batch(list(range(min(course.batch, len(course.data)))))
    gains, why = gains_from_bf16(student, batch, task, "cpu")
    refusal = refuses_channels_last(student, batch, task, training=True)
    layout: Literal["contiguous", "channels_last"] = "contiguous" if refusal else "channels_last"
    return Machine(device="cpu", precision="bf16" if gains else "fp32", layout=layout), refusal or why
