"""Parts of a training step: micro-batches with their counts, and the check before the optimizer acts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator

from limbeck.engine.process import summed
from limbeck.engine.state import Position
from limbeck.errors import RunError
from limbeck.record import Losses
from limbeck.task import Task, move


def counted(raw: Sequence[Any], task: Task, accelerator: Accelerator) -> list[dict[str, Any]]:
    """Micro-batches in normal form, on the device; where there are several, with their `count`.

    The count is what is in all micro-batches of all processes, divided by their number: sums divided
    by it, averaged over micro-batches and processes, are the means over the whole batch.
    """
    micros = [task.batch(micro) for micro in raw]
    pieces = len(micros) * accelerator.num_processes
    if pieces > 1:
        own = [task.counts(micro) for micro in micros]
        names = list(own[0])
        totals = summed(accelerator, [sum(count[name] for count in own) for name in names])
        count = {name: total / pieces for name, total in zip(names, totals, strict=True)}
        micros = [{**micro, "count": count} for micro in micros]
    return [move(micro, accelerator.device) for micro in micros]


def index_of(micros: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """The index of the samples of some micro-batches, where they have one."""
    return tuple(i for micro in micros if "index" in micro for i in micro["index"].tolist())


def refuse_non_finite(
    results: Sequence[Losses],
    micros: Sequence[Mapping[str, Any]],
    position: Position,
    accelerator: Accelerator,
) -> None:
    """Stops before the step when a loss is not finite; reading the losses waits for the device.

    Raises:
        RunError: names term, step and samples; on the other processes, that it was not theirs.
    """
    bad = [not math.isfinite(losses.total.item()) for losses in results]
    if not summed(accelerator, [float(any(bad))])[0]:
        return
    place = f"stage {position.stage + 1}, epoch {position.epoch + 1}, step {position.step + 1}"
    if not any(bad):
        raise RunError(f"a loss of another process is not finite ({place})")
    losses, micro = results[bad.index(True)], micros[bad.index(True)]
    values = {name: value.item() for name, value in losses.terms.items()}
    culprits = [f"{name} = {value:g}" for name, value in values.items() if not math.isfinite(value)]
    raise RunError(
        f"the loss is not finite: {', '.join(culprits) or 'the total'} ({place}; {_samples(micro)})",
        fix="a lower train.learning_rate, train.clip_norm = 1.0, or look at these samples; "
        "the checkpoint before this step is kept",
    )


def _samples(micro: Mapping[str, Any]) -> str:
    """The samples whose own inputs are not finite, or else those of the batch."""
    index = list(index_of([micro]))
    inputs = micro["inputs"]
    values = [
        v for v in (inputs.values() if isinstance(inputs, Mapping) else [inputs]) if v.is_floating_point()
    ]
    if values and index:
        fine = torch.stack([value.isfinite().flatten(1).all(1) for value in values]).all(0).tolist()
        culprits = [number for number, whole in zip(index, fine, strict=True) if not whole]
        if culprits:
            return f"not finite in itself: sample {_listed(culprits)}"
    return f"samples {_listed(index)}" if index else "samples without index"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
