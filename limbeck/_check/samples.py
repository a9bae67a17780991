"""Faults of the data: samples in two splits, unreadable ones, unsteady ones, absent classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck._check.desk import Desk
from limbeck._run.counting import CountLine
from limbeck._run.screen import Screen
from limbeck._show import figures
from limbeck.data.adapt import find_unsteady
from limbeck.data.dataset import ArrayDataset, Dataset, Splits
from limbeck.data.images import Unreadable
from limbeck.errors import LimbeckError, RunError

#: Samples of a part that are read where each is decoded anew.
MOST = 20_000
_BLOCK = 256
#: Share of the smaller split from which samples in two splits are an error.
_LEAK = 0.001
_LISTED = 20  # unreadable files that a finding names


@dataclass
class Part:
    """What reading a part of the data gave.

    Args:
        marks: of each sample that was read, 16 bytes that tell its inputs; `places`: its index.
        unreadable: the samples that cannot be read.
    """

    marks: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def read_through(splits: Splits, screen: Screen) -> dict[str, Part]:
    """Reads every sample of every part once, of decoded pictures at most `MOST` a part."""
    parts = splits.parts()
    number = {name: _to_read(data) for name, data in parts.items()}
    line = CountLine(screen, "read", sum(number.values()), 0.0)
    found: dict[str, Part] = {}
    done = 0
    try:
        for name, data in parts.items():
            found[name] = part = Part()
            for first in range(0, number[name], _BLOCK):
                _read(data, list(range(first, min(first + _BLOCK, number[name]))), part)
                line.say(done + first)
            done += number[name]
    finally:
        line.close()
    return found


def _to_read(data: Dataset) -> int:
    innermost = data
    while innermost.base is not None:
        innermost = innermost.base
    return len(data) if isinstance(innermost, ArrayDataset) else min(len(data), MOST)


def _read(data: Dataset, places: Sequence[int], part: Part) -> None:
    try:
        batch = data.batch(places)
    except LimbeckError as error:
        if len(places) > 1:
            for place in places:
                _read(data, [place], part)
        elif isinstance(error, RunError):
            part.unreadable.append(Unreadable(places[0], error.where or f"sample {places[0]}", error.message))
        return
    inputs = batch["inputs"]
    pictures = isinstance(inputs, Tensor) and inputs.ndim == 4
    # Rows and short texts may be equal by chance; with their target they are seldom.
    part.marks += _marks(inputs if pictures else {**_by_name(inputs), " target": batch["targets"]})
    part.places += batch["index"].tolist()


def _by_name(inputs: Any) -> dict[str, Tensor]:
    return dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}


def _marks(inputs: Any) -> list[bytes]:
    """A hash of each sample's inputs; what pads a row of ids to the length of its batch does not count."""
    named = _by_name(inputs)
    rows = [torch.as_tensor(named[name]).numpy() for name in sorted(named)]
    marks = []
    for number in range(len(rows[0])):
        state = hashlib.blake2b(digest_size=16)
        for values in rows:
            row = values[number]
            state.update(
                (np.trim_zeros(row, "b") if row.dtype.kind == "i" and row.ndim == 1 else row).tobytes()
            )
            state.update(b"|")
        marks.append(state.digest())
    return marks


def check_data(desk: Desk, splits: Splits, train: Dataset, parts: Mapping[str, Part]) -> None:
    """All of it; `parts` is what `read_through` gave, `train` the samples as students see them."""
    _unreadable(desk, splits, parts)
    _leaks(desk, parts)
    _absent(desk, splits)
    desk.looks("K208")
    unsteady = find_unsteady(train) if not desk.has("K114") else []
    if unsteady:
        listed = ", ".join(map(str, unsteady[:8]))
        desk.finds(
            "K208",
            f"samples {listed} look different when they are read twice in the same view",
            *("data", "source"),
            fix="draw from the global generators of torch, numpy or random: they are seeded for every sample",
            detail="A transform of yours holds a generator of its own: every worker process draws the same "
            "numbers, and stored answers of the teacher do not belong to what the student sees.",
        )


def _unreadable(desk: Desk, splits: Splits, parts: Mapping[str, Part]) -> None:
    desk.looks("K114")
    for name, data in splits.parts().items():
        if len(data) > MOST and _to_read(data) < len(data):
            desk.notes.append(f"{MOST:,} of {len(data):,} {name} samples were read")
    broken = [each for part in parts.values() for each in part.unreadable]
    if broken:
        shown = "; ".join(f"{each.name} ({_reason(each.reason)})" for each in broken[:_LISTED])
        more = f"; and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
        desk.finds(
            "K114",
            f"{figures.count(len(broken), 'picture')} cannot be read",
            *("data", "source"),
            fix="replace them, or skip_unreadable = true in [data]",
            detail=shown + more,
        )


def _reason(said: str) -> str:
    return said.removeprefix("a picture cannot be read: ")


def _leaks(desk: Desk, parts: Mapping[str, Part]) -> None:
    """Samples of one split that are in another; rows of a table may repeat by chance, as training rows do."""
    desk.looks("K108", "K202")
    if "train" not in parts or not parts["train"].marks:
        return
    counts = Counter(parts["train"].marks)
    own = sum(number for number in counts.values() if number > 1) / len(parts["train"].marks)
    for (one, first), (other, second) in combinations(parts.items(), 2):
        known = dict(zip(first.marks, first.places, strict=True))
        shared = [
            (known[mark], place)
            for mark, place in zip(second.marks, second.places, strict=True)
            if mark in known
        ]
        if not shared:
            continue
        smaller = min(len(first.marks), len(second.marks))
        share = len(shared) / smaller
        if own > _LEAK and share <= 2 * own:
            desk.notes.append(
                f"{figures.count(len(shared), 'sample')} of {other} in {one} too, "
                "no more than train repeats its own"
            )
            continue
        code = "K108" if share > _LEAK else "K202"
        pairs = ", ".join(f"{a} = {b}" for a, b in shared[:3])
        desk.finds(
            code,
            f"{figures.count(len(shared), 'sample')} of {other} ({_share(share)}) "
            f"{'is' if len(shared) == 1 else 'are'} in {one} too",
            *("data", "source"),
            fix=f"remove them from {one}",
            detail=f"By their numbers in {one} and {other}: {pairs}{', ...' if len(shared) > 3 else ''}",
        )


def _share(value: float) -> str:
    return f"{value:.2%}".replace("%", " %")


def _absent(desk: Desk, splits: Splits) -> None:
    if splits.task.kind != "classes" or not splits.classes:
        return
    desk.looks("K209")
    size = len(splits.classes)
    trained = _counts(splits.train, size)
    for name, data in splits.parts().items():
        if name == "train":
            continue
        counts = _counts(data, size)
        absent = [splits.classes[k] for k in range(size) if trained[k] and not counts[k]]
        if absent and int(counts.sum()):
            listed = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
            desk.finds(
                "K209",
                f"{name} has no sample of {'class' if len(absent) == 1 else 'classes'} {listed}",
                *("data", "source"),
                fix=f"put some there, or leave {name} out: it is drawn by class then",
            )


def _counts(data: Dataset, size: int) -> Tensor:
    targets = data.targets()
    return torch.bincount(targets[targets >= 0], minlength=size)
