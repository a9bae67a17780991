"""What a phase will cost: a few dry steps on networks that are thrown away afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from limbeck.data.dataset import Dataset
from limbeck.data.loader import Loader, batch_sizes
from limbeck.engine.layout import Arrangement, arranged
from limbeck.engine.optimizers import build_optimizer
from limbeck.engine.settings import Machine, Training
from limbeck.engine.stages import check, epochs_of, select
from limbeck.engine.state import random_state, restore_random_state
from limbeck.method import Method, Stage
from limbeck.task import move, num_samples

_STEPS = 3  # timed, after one that warms up
_PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Cost:
    """Of one training.

    Args:
        epochs: of all stages; `steps`: of all epochs.
        seconds: of steps and of scoring after every epoch.
        scoring: seconds of scoring one sample by all networks of the method.
    """

    epochs: int
    steps: int
    seconds: float
    scoring: float = 0.0


@dataclass(frozen=True)
class Dry:
    """A method that took its dry steps, and what the training will cost."""

    method: Method
    cost: Cost
    machine: Machine


def measure(
    make: Callable[[], Method],
    train: Dataset,
    validation: Dataset | None,
    settings: Training,
    machine: Machine,
) -> Dry:
    """Takes a few steps of every stage; nothing outside changes, the random generators neither.

    On a device that runs out of memory the micro-batch is halved until a step fits; the batch stays. Where a
    step fails in channels_last it is tried without. Nothing is compiled.

    Args:
        make: builds the method, anew at every call.
        train: what it is trained on.
        validation: what its networks are scored on after every epoch.
        settings: of the training.
        machine: as chosen so far.
    """
    with undisturbed():
        while True:
            try:
                method = make().to(machine.device)
                return Dry(method, _cost(method, train, validation, settings, machine), machine)
            except torch.OutOfMemoryError:
                size = machine.micro_batch or settings.batch_size
                if size == 1:
                    raise
                machine = replace(machine, micro_batch=(size + 1) // 2)
                torch.cuda.empty_cache()
            except RuntimeError:  # some code of a user's views maps as if they were contiguous
                if machine.layout == "contiguous":
                    raise
                machine = replace(machine, layout="contiguous")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, the random generators may draw; afterwards they are where they were."""
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)


def _cost(
    method: Method, train: Dataset, validation: Dataset | None, settings: Training, machine: Machine
) -> Cost:
    stages = method.stages()
    # A chain that decides by scores when it ends is taken for as long as its first stage would be.
    known = list(stages) if isinstance(stages, Sequence) else None
    if known is not None:
        check(known, settings)
    first = known if known is not None else [next(iter(stages))]
    total = Cost(0, 0, 0.0)
    for stage in first:
        epochs = epochs_of(stage, known, settings.epochs) if known else settings.epochs
        if epochs:
            steps, seconds = _stage(method, stage, train, settings, machine)
            total = Cost(
                total.epochs + epochs, total.steps + epochs * steps, total.seconds + epochs * seconds
            )
            if stage.begin is not None:
                total = replace(total, seconds=total.seconds + _begin_seconds(stage, train, settings))
    scoring = _scoring(method, validation or train, machine)
    scored = total.epochs * len(validation) if validation is not None else 0
    return replace(total, seconds=total.seconds + scored * scoring, scoring=scoring)


def _stage(
    method: Method, stage: Stage, train: Dataset, settings: Training, machine: Machine
) -> tuple[int, float]:
    """Steps of an epoch, and the seconds that it takes."""
    batches = len(batch_sizes(len(train), settings.batch_size, 1, drop_last=stage.whole_batches))
    steps = max(batches // len(stage.updates) if stage.own_batches else batches, 1)
    method.enter(stage)
    data = small(method, stage, train, settings)
    for name, value in {"progress": 0.0, "epoch": 1, "epochs": 1, "scores": {}, "history": []}.items():
        setattr(method, name, value)
    optimizers = {update.name: build_optimizer(update, settings) for update in stage.updates}
    method.optimizers = optimizers
    arrangement = Arrangement(method, replace(machine, compile=False))
    rows = settings.batch_size * stage.views
    size = max((machine.micro_batch or rows) // stage.views, 1)
    parts = -(-rows // (machine.micro_batch or rows))
    taken = []
    for _ in range(1 + _STEPS):
        began = time.perf_counter()
        for update in stage.updates:
            batch = batch_of(method, data, min(size, len(data)), machine, stage)
            with _autocast(machine):
                total = method(batch, update=update.name).total
            total.backward()
            optimizers[update.name].step()
            optimizers[update.name].zero_grad()
        _wait(machine)
        taken.append(time.perf_counter() - began)
    arrangement.undo()
    due = sum(-(-steps // update.every) for update in stage.updates) / (steps * len(stage.updates))
    return steps, sorted(taken[1:])[_STEPS // 2] * parts * due * steps


def small(method: Method, stage: Stage, train: Dataset, settings: Training) -> Dataset:
    """A few batches of the data of a stage, with what its `begin` makes of them."""
    data = select(stage, train, method.task)
    data = data.subset(torch.arange(min(len(data), settings.batch_size)))
    return data if stage.begin is None else stage.begin(data)


def _begin_seconds(stage: Stage, train: Dataset, settings: Training) -> float:
    assert stage.begin is not None
    size = min(len(train), settings.batch_size)
    began = time.perf_counter()
    stage.begin(train.subset(torch.arange(size)))
    return (time.perf_counter() - began) * len(train) / size


def batch_of(method: Method, data: Dataset, size: int, machine: Machine, stage: Stage | None = None) -> Any:
    """The first samples, for a stage in all its views and mixed where the data say so."""
    view, places = 1 if data.augmented else 0, 1 if stage is None else stage.views
    loader = Loader(
        data, size, seed=0, shuffle=False, length=size, view=view, places=places, mix=stage is not None
    )
    batch = method.task.batch(loader.read(0)[0])
    return arranged(move(batch, torch.device(machine.device or "cpu")), machine)


def _autocast(machine: Machine) -> Any:
    kind = (machine.device or "cpu").partition(":")[0]
    return torch.autocast(kind, dtype=_PRECISION[machine.precision], enabled=machine.precision != "fp32")


def _wait(machine: Machine) -> None:
    if machine.device and machine.device.startswith("cuda"):
        torch.cuda.synchronize(machine.device)


def _scoring(method: Method, data: Dataset, machine: Machine) -> float:
    """Seconds of scoring one sample by all networks of a method."""
    batch = batch_of(method, data, min(len(data), 256), machine)
    seconds = 0.0
    for network in method.networks().values():
        network.eval()
        with torch.no_grad():
            method.task.call(network, batch)
            began = time.perf_counter()
            method.task.call(network, batch)
            _wait(machine)
        seconds += (time.perf_counter() - began) / max(num_samples(batch), 1)
    return seconds
