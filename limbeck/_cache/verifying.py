"""Checking a cache without its teacher: every byte of the key and of every shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck._cache.fields import Fields, Store
from limbeck._cache.key import FORMAT, written
from limbeck._cache.shards import Shards, damages
from limbeck.errors import RequestError
from limbeck.record import Record


@dataclass(frozen=True)
class Verified:
    """What a check of a cache found.

    Attributes:
        folder: of the cache.
        views: how many answers are stored, by view.
        samples: of the data, so of a whole view.
        bytes: of one answer.
        checked: answers that were read.
        damaged: what is wrong, a sentence a file.
    """

    folder: str
    views: Mapping[int, int]
    samples: int
    bytes: int
    checked: int
    damaged: tuple[str, ...] = ()

    def text(self) -> str:
        """A few lines for people."""
        whole = [str(view) for view, stored in self.views.items() if stored == self.samples]
        lines = [f"{self.folder}: {self.checked:,} answers of {self.bytes:,} bytes checked"]
        lines.append(f"  whole views of {self.samples:,} samples: {', '.join(whole) or 'none'}")
        for view, stored in self.views.items():
            if stored != self.samples:
                lines.append(
                    f"  view {view}: {stored:,} of {self.samples:,} answers; the next run writes the rest"
                )
        lines += [f"damaged: {text}" for text in self.damaged] or ["no damage"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": 1,
            "folder": self.folder,
            "samples": self.samples,
            "views": {str(view): stored for view, stored in self.views.items()},
            "bytes_per_answer": self.bytes,
            "checked": self.checked,
            "damaged": list(self.damaged),
        }


def verify(folder: Path | str, progress: Callable[[int, int], None] | None = None) -> Verified:
    """Reads every byte of a cache; neither teacher nor data are needed.

    Args:
        folder: of the cache.
        progress: hears how many answers were checked, and of how many.

    Raises:
        RequestError: there is no cache, its key is damaged, or it has a newer format.
    """
    folder = Path(folder)
    found = written(folder)
    if found is None:
        raise RequestError(f"there is no teacher cache in {folder}", fix="the folder that holds key.json")
    key, record = found["key"], found["record"]
    if key.get("format") != FORMAT:
        raise RequestError(
            f"{folder} has format {key.get('format')}; this limbeck reads {FORMAT}",
            fix="the limbeck that wrote it, or write it again",
        )
    shards = Shards(folder, _dtype(key, record), key["samples"])
    views = {
        view: shards.number - sum(len(shards.span(s)) for s in shards.missing(view))
        for view in shards.views()
    }
    total, done = sum(views.values()), 0

    def say(number: int) -> None:
        nonlocal done
        done += number
        if progress is not None:
            progress(done, total)

    damaged = tuple(damages(shards, views, say))
    return Verified(str(folder), views, key["samples"], shards.dtype.itemsize, done, damaged)


def _dtype(key: Mapping[str, Any], record: Mapping[str, Any]) -> np.dtype[Any]:
    """The layout of an answer, from the shapes in the key file."""
    import torch

    shapes = {name: torch.zeros(1, *shape) for name, shape in record["shapes"].items()}
    store = Store(**{**key["store"], "temperatures": tuple(key["store"]["temperatures"]) or (1.0,)})
    layers = {path: shapes[path] for path in key["layers"]}
    return Fields(Record(shapes["output"], layers), store).dtype
