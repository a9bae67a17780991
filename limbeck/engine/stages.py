"""What the loop works out from a stage: its epochs, its samples, what its `begin` makes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from limbeck.data.dataset import Dataset
from limbeck.engine import checkpoint
from limbeck.engine.optimizers import build_optimizer, build_schedule
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, RunError, nearest
from limbeck.method import Stage
from limbeck.task import Task


def check(stages: Sequence[Stage], settings: Training) -> None:
    """Refuses settings that would fail only when a later stage begins.

    Raises:
        RequestError: a group that no update trains, or an optimizer or schedule that torch refuses.
    """
    groups = {group for stage in stages for update in stage.updates for group in update.trains}
    for name in settings.groups:
        if name not in groups:
            raise RequestError(
                f"there is no group {name!r} of parameters; the method trains {', '.join(sorted(groups))}",
                near=nearest(name, groups),
            )
    for stage in stages:
        for update in stage.updates:
            build_schedule(build_optimizer(update, settings), settings, epochs=1, steps=1)


def epochs_of(stage: Stage, known: Sequence[Stage] | None, total: int) -> int:
    """The epochs of a stage: its own number, or its share of what is left; the last one takes the rest.

    Args:
        stage: the stage.
        known: all stages; None where a generator decides as it goes: shares are of the whole then.
        total: the epochs of the run.
    """
    if stage.epochs is not None:
        return stage.epochs
    if known is None:
        return max(round(total * stage.share), 1) if stage.share and total else 0
    shared = [other for other in known if other.epochs is None]
    left = max(total - sum(other.epochs or 0 for other in known), 0)
    whole = sum(other.share for other in shared)
    parts = [int(left * other.share / whole + 1e-9) for other in shared]
    parts[-1] += left - sum(parts)
    return parts[next(number for number, other in enumerate(shared) if other is stage)]


def select(stage: Stage, train: Dataset, task: Task) -> Dataset:
    """The samples of a stage: every one, or those with a target."""
    if stage.data == "train":
        return train
    labelled = task.labelled(train.targets())
    if bool(labelled.all()):
        return train
    if not bool(labelled.any()):
        raise RequestError(f"the stage {stage.name!r} needs labels, and no training sample has one")
    return train.subset(labelled.nonzero().squeeze(1))


def begin(stage: Stage, number: int, data: Dataset, folder: Path | None, *, write: bool) -> Dataset:
    """Runs the stage's `begin`; the columns that it adds are stored for a resume.

    Raises:
        RunError: it returned other samples than it was given.
    """
    if stage.begin is None:
        return data
    begun: Dataset = stage.begin(data)
    if len(begun) != len(data):
        raise RunError(
            f"{stage.name}.begin was given {len(data)} samples and returned {len(begun)}",
            fix="return data.with_columns({...})",
        )
    columns = {name: value for name, value in begun.columns.items() if name not in data.columns}
    if columns and folder is not None and write:
        path = checkpoint.write(folder, f"stage{number}-{time.time_ns():020d}", columns, {})
        checkpoint.prune(folder, f"stage{number}", path)
    return begun


def begun_before(stage: Stage, number: int, data: Dataset, folder: Path | None) -> Dataset:
    """The data of a stage that was entered before a resume, with the columns that were stored."""
    made = checkpoint.newest(folder, f"stage{number}") if stage.begin and folder is not None else None
    return data if made is None else data.with_columns(checkpoint.read(made)[0])


def due(step: int, every: int, steps: int) -> bool:
    """Whether an update is due at a step of an epoch: every so many, counted from 0, and the last."""
    return step % every == 0 or step == steps - 1
