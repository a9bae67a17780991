"""The check of the contract suite that stored answers of a teacher are as good as live ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from limbeck._contract.building import changed, copy_of_state, hold, make, settings_for
from limbeck._contract.tiny import example_for
from limbeck.cache import CachedTeacher
from limbeck.engine.fitting import fit
from limbeck.engine.result import Fit
from limbeck.method import Method
from limbeck.task import Task
from limbeck.teacher import Teacher

_SAMPLES, _BATCH = 48, 16  # batches of at least 16: smaller ones may be computed in other ways


def a_cached_teacher_trains_to_the_same_bits(method: type[Method]) -> str | None:
    """With stored answers, written or read, the same weights and losses come out as with a live teacher."""
    if method.card.teacher != "outputs":
        return f"the card says: teacher {method.card.teacher}"
    live = _trained(method, None)
    with tempfile.TemporaryDirectory() as folder:
        for what in ("written", "read"):
            cached = _trained(method, Path(folder) / "cache")
            moved = changed(cached.method, copy_of_state(live.method))
            hold(not moved, f"with answers that are {what}, {sorted(moved)[:3]} differ")
            terms = [[entry["terms"] for entry in run.history] for run in (cached, live)]
            hold(terms[0] == terms[1], f"with answers that are {what}, losses differ")
    return None


def _trained(method: type[Method], folder: Path | None) -> Fit:
    """Two views in turn where the data are pictures, in a shuffled order."""
    example = example_for(method.card, statistics=True)
    pictures = example.task.kind != "tokens"
    data = example.data(_SAMPLES, augment=["crop", "flip"])
    layers = make(method, statistics=True, samples=_BATCH).tapped["teacher"]

    def answering(network: nn.Module, task: Task) -> Teacher:
        if folder is None:
            return Teacher(network, task=task)
        return CachedTeacher(network, folder, data, task=task, paths=layers)

    built = make(method, statistics=True, samples=_BATCH, answering=answering)
    return fit(built, data, settings=settings_for(3, batch_size=_BATCH), seed=3, views=2 if pictures else 0)
