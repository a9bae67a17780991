"""What adapters to loops with one optimizer share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.errors import RequestError, RunError
from limbeck.method import Method, Stage, Update
from limbeck.record import Losses
from limbeck.task import num_samples


def enter_only_stage(method: Method, loop: str) -> Update:
    """Enters the one stage of a method and returns its one update.

    Args:
        method: what to train.
        loop: whose loop it is, for the message.

    Raises:
        RequestError: the method has several stages or updates, or asks for more of its loop; the engine
            does all of that.
    """
    stages = method.stages()
    if not isinstance(stages, Sequence):
        raise _engine_alone(method, loop, "decides its stages as it goes")
    if len(stages) > 1:
        raise _engine_alone(method, loop, f"trains in stages ({', '.join(stage.name for stage in stages)})")
    stage: Stage = stages[0]
    if len(stage.updates) > 1:
        names = ", ".join(update.name for update in stage.updates)
        raise _engine_alone(method, loop, f"makes several updates a step ({names})")
    update = stage.updates[0]
    wish = _special(stage, update)
    if wish:
        raise _engine_alone(method, loop, wish)
    method.enter(stage)
    return update


def _special(stage: Stage, update: Update) -> str:
    """What a stage asks of its loop beyond forward, backward and step on every batch; empty if nothing."""
    if stage.begin is not None:
        return "prepares its data when a stage begins"
    if stage.whole_batches:
        return "leaves out batches that are not whole"
    if stage.views != 1:
        return f"takes {stage.views} views of each sample in a batch"
    if update.every != 1:
        return f"steps every {update.every} batches"
    if update.optimizer or update.rate != 1:
        return "sets options of its optimizer"
    return ""


def _engine_alone(method: Method, loop: str, wish: str) -> RequestError:
    return RequestError(
        f"{type(method).__name__} {wish}, which the loop of {loop} has no place for",
        fix="train it with the engine: limbeck.fit(method, train, validation)",
    )


def takes_labelled_alone(method: Method) -> bool:
    """Whether the only stage of a method leaves out samples without a label."""
    return next(iter(method.stages())).data == "labelled"


def refuse_unlabelled(method: Method, batch: Mapping[str, Any]) -> None:
    """Refuses samples that the method leaves out; loops of others show every sample. Waits for the device.

    Raises:
        RequestError: a sample has no label.
    """
    samples, targets = num_samples(batch), batch.get("targets")
    missing = samples if targets is None else int((~method.task.labelled(targets)).sum())
    if missing:
        raise RequestError(
            f"{type(method).__name__} trains on labelled samples alone, and {missing} of a batch of "
            f"{samples} have no label",
            fix="a data set of the labelled samples, or limbeck.fit(method, train), which takes these alone",
        )


def refuse_non_finite(losses: Losses, batch: Mapping[str, Any]) -> None:
    """Stops before the step when a loss is not finite, naming the terms. Waits for the device.

    Raises:
        RunError: the total is infinite or not a number.
    """
    if math.isfinite(losses.total.item()):
        return
    values = {name: term.item() for name, term in losses.terms.items()}
    culprits = [f"{name} = {value:g}" for name, value in values.items() if not math.isfinite(value)]
    index = batch.get("index")
    samples = "without index" if index is None else ", ".join(str(i) for i in index.tolist()[:8])
    raise RunError(
        f"the loss is not finite: {', '.join(culprits) or 'the total'} (samples {samples})",
        fix="a lower learning rate, clipping of the gradient, or look at these samples",
    )
