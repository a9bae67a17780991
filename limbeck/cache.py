"""The teacher's answers on disk: written once for each view of each sample, read at the price of a copy."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck._cache.fields import Store
from limbeck._cache.key import Key, short
from limbeck._cache.shelf import WRITE_FIRST, Shelf
from limbeck._cache.verifying import Verified, verify
from limbeck._cache.writing import BATCH, fill
from limbeck._clock import part
from limbeck.data.dataset import Dataset
from limbeck.errors import RequestError
from limbeck.record import Record
from limbeck.task import Task, move
from limbeck.task.batches import device_of_inputs
from limbeck.teacher import Teacher

__all__ = ["BATCH", "CachedTeacher", "Store", "Verified", "free_bytes", "verify"]


class CachedTeacher(Teacher):
    """A teacher that answers from disk what it was asked before; the same call and the same record.

    An answer belongs to a sample and a view: batches need `index` and, where the data are augmented, `view`,
    as `data.batch(positions, view)` gives them. The first time that a view is asked for, the teacher answers
    all samples in it, in plain float32, and that is stored; `fill` does the same ahead of time. Stored in
    float32, answers equal those of `Teacher` bit for bit for batches of at least 16 samples.

    Args:
        model: the trained network, as in `Teacher`.
        folder: of this cache; made at the first answer.
        data: the samples, with their views; subsets and relabelled sets of it may be trained on.
        task: as in `Teacher`.
        paths: the layers that are stored beside the output.
        store: how answers are kept.
        write: False refuses to answer what is not stored.

    Raises:
        RequestError: `data` is no `Dataset`; at the first answer: the folder is a cache of another teacher,
            of other layers, data, views or of another store; the message names what differs.
        RunError: a file of the cache is damaged, or cannot be written.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path | str,
        data: Dataset,
        *,
        task: Task | None = None,
        paths: Sequence[str] = (),
        store: Store | None = None,
        write: bool = True,
    ) -> None:
        if not isinstance(data, Dataset):
            raise RequestError(
                f"data is {type(data).__name__}; a cache needs samples with an identity",
                fix="data=limbeck.data.as_dataset(...)",
            )
        super().__init__(model, task=task, paths=paths)
        self._shelf = Shelf(
            Teacher(model, task=self.task, paths=sorted(paths)), Path(folder), data, store or Store(), write
        )

    @property
    def folder(self) -> Path:
        """Of this cache."""
        return self._shelf.folder

    def reading(self, paths: Sequence[str], *, task: Task | None = None) -> CachedTeacher:
        """The same cache read at some of its layers; one that stores none yet takes them.

        Raises:
            RequestError: a layer is not stored.
        """
        shelf = self._shelf
        stored = shelf.teacher.paths
        missing = [path for path in paths if path not in stored]
        if missing and stored:
            raise RequestError(
                f"the cache {self.folder} stores the layers {list(stored)}, and {missing[0]!r} is asked for",
                fix=f"CachedTeacher(..., paths={list(dict.fromkeys([*stored, *paths]))})",
            )
        if missing:
            return CachedTeacher(
                self.model,
                shelf.folder,
                shelf.data,
                task=task or self.task,
                paths=paths,
                store=shelf.store,
                write=shelf.write,
            )
        other = copy.copy(self)  # the same shelf behind other taps
        Teacher.__init__(other, self.model, task=task or self.task, paths=paths)
        return other

    def __call__(self, batch: Any, *, output: bool = True) -> Record:
        """Answers one batch from disk.

        Args:
            batch: a batch in any form that the task takes, with `index` [B], and `view` [B] unless it is 0.
            output: false leaves the output out.

        Raises:
            RequestError: the batch has no index, or its inputs are not those of its view.
        """
        batch = self.task.batch(batch)
        device = device_of_inputs(batch["inputs"])
        with part("teacher"):
            found = self._shelf.fields.record(self._rows(batch), self.paths, output=output)
            layers = {path: move(value, device) for path, value in found.layers.items()}
            return Record(move(found.output, device), layers)

    def _rows(self, batch: dict[str, Any]) -> Any:
        """The stored answers to a batch; views that are missing are written first."""
        try:
            return self._shelf.rows(batch)
        except FileNotFoundError:
            views = sorted(set(torch.as_tensor(batch.get("view", 0)).reshape(-1).tolist()))
        if not self._shelf.write:
            lacking = next(view for view in views if self.missing([view]))
            raise RequestError(
                f"the cache {self.folder} does not hold all of view {lacking}", fix=WRITE_FIRST
            )
        self.fill(views)
        return self._shelf.rows(batch)

    def fill(
        self,
        views: Sequence[int] = (0,),
        *,
        batch_size: int = BATCH,
        workers: int = 0,
        part: tuple[int, int] = (0, 1),
        device: torch.device | str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Writes what is missing of some views; stopped at any moment, it goes on where it was.

        Args:
            views: view numbers.
            batch_size: samples a forward.
            workers: processes that read samples.
            part: (number of this process, number of processes): each writes its own shards.
            device: where the teacher answers; by default where it is.
            progress: hears how many answers of this process are written, and of how many; may raise to stop.

        Returns:
            How many answers were written.

        Raises:
            RunError: the disk is full or the folder cannot be written; what is written is kept.
        """
        say = progress or (lambda done, of: None)
        return fill(self._shelf, views, say, batch_size=batch_size, workers=workers, part=part, device=device)

    def missing(self, views: Sequence[int] = (0,)) -> int:
        """How many answers of some views are not stored yet; the teacher answers some samples to find out."""
        shards = self._shelf.shards
        return sum(len(shards.span(shard)) for view in views for shard in shards.missing(view))

    def bytes_of(self, views: Sequence[int] = (0,)) -> int:
        """What some views take on disk, whole."""
        return len(views) * len(self._shelf.data) * self._shelf.fields.bytes

    def kept_mass(self) -> float | None:
        """With top-k, the part of the probability that the kept classes hold, from 0 to 1.

        A mean over some samples at the highest stored temperature; the rest is stored as one number. None
        where all classes are kept.
        """
        return self._shelf.kept_mass

    def name_after_key(self) -> None:
        """Gives the folder a name of its own among others: what it was called, and twelve digits of the key.

        Only before the first answer.
        """
        folder = self._shelf.folder
        self._shelf.folder = folder.with_name(f"{folder.name}-{short(self.key())}")

    def key(self) -> Key:
        """All that the answers depend on, by part."""
        return self._shelf.key


def free_bytes(folder: Path) -> int:
    """Bytes free where a cache is or will be."""
    existing = next(each for each in [folder.absolute(), *folder.absolute().parents] if each.exists())
    return shutil.disk_usage(existing).free
