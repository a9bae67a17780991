"""Filling a cache: shard by shard, in any number of processes, from wherever it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from limbeck._cache.fields import described
from limbeck._cache.key import claim, compare, written
from limbeck._cache.shards import Rows
from limbeck._cache.shelf import FEW, Shelf, named
from limbeck.data.loader import Loader
from limbeck.errors import RunError
from limbeck.record import Record

#: Samples a forward.
BATCH = 128


def fill(
    shelf: Shelf,
    views: Sequence[int],
    progress: Callable[[int, int], None],
    *,
    batch_size: int = BATCH,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
    device: torch.device | str | None = None,
) -> int:
    """Writes what is missing of some views; see `CachedTeacher.fill`."""
    if device is not None:
        shelf.teacher.model.to(device)
    shards = shelf.shards
    every = [(view, shard) for view in dict.fromkeys(views) for shard in range(len(shards))]
    # Shared out before looking what is there: another process may have written some meanwhile.
    todo = [(view, s) for view, s in every[part[0] :: part[1]] if not shards.path(view, s).is_file()]
    if not todo:
        return 0
    shelf.teacher.check_steady(shelf.batch(range(min(FEW, len(shelf.data))), 0))
    with _saving(shelf, todo):
        claim(shelf.folder, shelf.key, described(shelf.fields))
        compare(shelf.folder, (written(shelf.folder) or {})["key"], shelf.key)
        shards.sweep()
    total, done = sum(len(shards.span(shard)) for _, shard in todo), 0
    for view, shard in todo:
        rows = np.zeros(len(shards.span(shard)), shelf.fields.dtype)
        for first, some in _answers(shelf, view, shard, batch_size, workers):
            rows[first : first + len(some)] = some
            done += len(some)
            progress(done, total)
        with _saving(shelf, todo):
            shards.write(view, shard, rows)
    return done


@contextmanager
def _saving(shelf: Shelf, todo: Sequence[tuple[int, int]]) -> Iterator[None]:
    """What the disk refuses, as a message that says how much is stored."""
    try:
        yield
    except OSError as error:
        shards = shelf.shards
        sizes = {(view, s): len(shards.span(s)) for view, s in todo}
        stored = sum(size for place, size in sizes.items() if shards.path(*place).is_file())
        raise RunError(
            f"the cache {shelf.folder} could not be written: {error.strerror or error}; "
            f"{stored:,} of {sum(sizes.values()):,} answers are stored",
            fix="make room or choose another folder; it goes on where it was",
        ) from error


def _answers(
    shelf: Shelf, view: int, shard: int, batch_size: int, workers: int
) -> Iterator[tuple[int, Rows]]:
    """The answers of a shard, batch by batch: the place of the first, and rows."""
    span = shelf.shards.span(shard)
    part = shelf.data.subset(torch.arange(span.start, span.stop))
    loader = Loader(part, batch_size, seed=0, shuffle=False, view=view, num_workers=workers)
    first = 0
    for (raw,) in loader:
        batch = shelf.teacher.task.batch(raw)
        number = len(batch["index"])
        record = shelf.teacher(shelf.moved(_enough(batch)))
        cut = Record(record.output[:number], {p: value[:number] for p, value in record.layers.items()})
        yield first, shelf.fields.pack(cut, batch.get("targets"), batch["index"].tolist())
        first += number


def _enough(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch with at least `FEW` samples, its own ones repeated."""
    number = len(batch["index"])
    if number >= FEW:
        return batch
    rows = torch.arange(FEW) % number
    many = {name: value[rows] for name, value in named(batch["inputs"]).items()}
    return {"inputs": many if isinstance(batch["inputs"], dict) else many["inputs"]}
