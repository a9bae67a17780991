"""An opened cache: whose it is, and the stored answers to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck._cache.fields import Fields, Store
from limbeck._cache.key import Key, compare, key_of, written
from limbeck._cache.shards import Rows, Shards
from limbeck._taps.survey import beside
from limbeck.data.dataset import Dataset
from limbeck.errors import RequestError
from limbeck.task.batches import device_of_inputs
from limbeck.teacher import Teacher

#: With fewer samples a forward may be computed in other ways, and answers differ in the last bits.
FEW = 16
#: Answers of the same teacher to the same samples differ by less, relative to the largest value, on other
#: processors and with other numbers of threads; float16 rounds more.
_TOLERANCE = {"float32": 1e-3, "float16": 4e-3}
#: The inputs of the first batches are compared with the data's, then those of one sample in so many batches.
_FIRST, _EVERY = 3, 64
WRITE_FIRST = "write it first: limbeck cache RECIPE, or teacher.fill([...])"
_BY_DATA = "or batches of data.batch(positions, view)"


@dataclass(frozen=True)
class _Opened:
    fields: Fields
    shards: Shards
    kept_mass: float | None


@dataclass
class Shelf:
    """An opened cache, shared by all that read it at different layers.

    Args:
        teacher: the plain one, with all stored layers.
        folder: of the cache.
        data: whose answers are stored.
        store: how.
        write: whether what is missing may be written.
    """

    teacher: Teacher
    folder: Path
    data: Dataset
    store: Store
    write: bool
    calls: int = 0

    @cached_property
    def key(self) -> Key:
        """All that the answers depend on; hashed once."""
        return key_of(self.teacher.model, self.teacher.paths, self.data, self.store)

    @property
    def fields(self) -> Fields:
        """The form of an answer."""
        return self._opened.fields

    @property
    def shards(self) -> Shards:
        """The files."""
        return self._opened.shards

    @property
    def kept_mass(self) -> float | None:
        """See `CachedTeacher.kept_mass`."""
        return self._opened.kept_mass

    @cached_property
    def _opened(self) -> _Opened:
        """The key compared, the form of an answer found out, and some answers compared with stored ones."""
        if not len(self.data):
            raise RequestError("the data set is empty")
        found = written(self.folder)
        if found is not None:
            compare(self.folder, found["key"], self.key)
        elif not self.write:
            raise RequestError(f"there is no cache {self.folder}", fix=WRITE_FIRST)
        few = self.batch(range(min(FEW, len(self.data))), 0)
        first = self.teacher(few)
        fields = Fields(first, self.store)
        shards = Shards(self.folder, fields.dtype, len(self.data))
        if found is not None:
            self._compare_answers(fields, shards)
        return _Opened(fields, shards, fields.kept_mass(first, few.get("targets")))

    def batch(self, positions: Sequence[int], view: int) -> dict[str, Any]:
        """Samples of the data in a view, where the teacher is."""
        return self.moved(self.teacher.task.batch(self.data.batch(list(positions), view)))

    def moved(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch where the teacher is."""
        return dict(beside(self.teacher.model, batch))

    def _compare_answers(self, fields: Fields, shards: Shards) -> None:
        """Code that changed shows in no fingerprint: some answers are asked for again."""
        view = next((v for v in shards.views() if 0 not in shards.missing(v)), None)
        if view is None:
            return
        places = np.arange(min(FEW, len(self.data)))
        batch = self.batch(places.tolist(), view)
        now = fields.pack(self.teacher(batch), batch.get("targets"), places.tolist())
        worst = fields.differ(shards.read(np.full(len(places), view), places), now)
        if worst > _TOLERANCE[self.store.dtype]:
            raise RequestError(
                f"the cache {self.folder} is not for this: the teacher answers differently now, by "
                f"{worst:.1g} of its largest value, though its weights and structure are the same",
                fix="put its code back, or delete this cache",
            )

    # -- reading -------------------------------------------------------------------------------------

    def rows(self, batch: dict[str, Any]) -> Rows:
        """The stored answers to a batch.

        Raises:
            FileNotFoundError: a view is not stored as a whole.
        """
        views, places = self._asked(batch)
        self._compare_inputs(batch, views, places)
        return self.shards.read(views, places)

    def _asked(self, batch: dict[str, Any]) -> tuple[Rows, Rows]:
        """View numbers and positions of a batch's samples, int64 [B] each."""
        index = batch.get("index")
        if not isinstance(index, Tensor):
            raise RequestError(
                "a stored answer belongs to a sample, and this batch has no index",
                fix='{"inputs": ..., "targets": ..., "index": ...}, ' + _BY_DATA,
            )
        view = batch.get("view")
        if view is None and self.data.augmented:
            raise RequestError(
                "a stored answer belongs to a view of a sample, and this batch of augmented data has no view",
                fix='{"inputs": ..., "index": ..., "view": ...}, ' + _BY_DATA,
            )
        views = np.broadcast_to(_numbers(0 if view is None else view), (len(index),))
        if len(views) and int(views.min()) < 0:
            raise RequestError(
                "this batch mixes samples (mixup, cutmix): no stored answer belongs to it",
                fix='a live Teacher, in a recipe cache.mode = "off"',
            )
        return views, self._positions(_numbers(index))

    @cached_property
    def _order(self) -> tuple[Rows, Rows]:
        """The identities of the samples, sorted, and where each stands."""
        known = self.data.index().numpy()
        order = np.argsort(known, kind="stable")
        return known[order], order

    def _positions(self, index: Rows) -> Rows:
        """The positions of samples in the data, by their identity."""
        known, order = self._order
        found = np.minimum(np.searchsorted(known, index), len(known) - 1)
        strangers = index[known[found] != index]
        if len(strangers):
            raise RequestError(
                f"sample {int(strangers[0])} is not in the data of the cache {self.folder}, which have "
                f"{len(known):,} samples, {int(known[0])} to {int(known[-1])}",
                fix="train on these data or a subset of them, or write a cache for the others",
            )
        return order[found]

    def _compare_inputs(self, batch: dict[str, Any], views: Rows, places: Rows) -> None:
        """Looks whether the student sees what the teacher saw: all samples at first, then one now and then.

        On an accelerator only at first: reading inputs back would stall it.
        """
        call, self.calls = self.calls, self.calls + 1
        if call >= _FIRST and (call % _EVERY or device_of_inputs(batch["inputs"]).type != "cpu"):
            return
        chosen = np.arange(len(places)) if call < _FIRST else np.array([call // _EVERY % len(places)])
        theirs = self.data.batch(places[chosen].tolist(), torch.from_numpy(views[chosen].copy()))["inputs"]
        rows = torch.from_numpy(chosen)
        for name, own in named(batch["inputs"]).items():
            seen, known = own.detach().cpu()[rows], named(theirs).get(name)
            if known is None or not torch.equal(seen, known.to(seen.dtype)):
                sample, view = int(_numbers(batch["index"])[chosen[0]]), int(views[chosen[0]])
                raise RequestError(
                    f"the inputs of this batch are not those of the cached data (samples from {sample} on, "
                    f"view {view}): they were augmented or normalised after data.batch",
                    fix="data.augment(Views(seed, [...])) in place of transforms of your own",
                )


def named(inputs: Any) -> dict[str, Tensor]:
    """The tensors that enter a model, by name."""
    return dict(inputs) if isinstance(inputs, dict) else {"inputs": inputs}


def _numbers(value: Any) -> Rows:
    return torch.as_tensor(value).cpu().numpy()
