"""Batches in an order that is a pure function of seed, stage and epoch, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from limbeck.data import counter
from limbeck.data.dataset import Dataset
from limbeck.data.derived import taken
from limbeck.data.draws import view_number
from limbeck.errors import LimbeckError, RequestError

#: A last batch smaller than this part of the others is merged into the one before.
_SMALLEST_PART = 8


class Loader:
    """The batches of one epoch: for each step a list of micro-batches in normal form.

    The order depends on (seed, stage, epoch) alone, not on processes, micro-batches, workers or where the
    iteration starts. A batch is cut into `world * micro_batches` slices that follow each other and differ by
    at most one sample; process `rank` reads its own `micro_batches` of them. A batch with fewer samples than
    slices is cut into fewer micro-batches: none is empty.

    What is left over for a last, smaller batch is a batch of its own, unless it is less than an eighth of
    `batch_size`, a single sample, or has no sample for some process: then it is merged into the batch
    before, for batch statistics of one sample do not exist and those of a few are poor. With `drop_last` it
    is left out.

    With `mix`, and a data set that mixes, the samples of a batch are mixed before it is cut: partners and
    share depend on (seed, stage, epoch, batch) alone, and a process reads the partners of its samples too.

    Args:
        dataset: the samples.
        batch_size: samples of a step, over all processes and micro-batches.
        seed: of the run.
        stage: number of the stage.
        epoch: number of the epoch within the stage.
        start_batch: batches of this epoch that are done already.
        shuffle: False keeps the order of the data.
        drop_last: only whole batches.
        num_workers: processes that read ahead; 0 reads in this one. The batches are the same.
        rank: number of this process, 0..world-1.
        world: number of processes.
        micro_batches: slices of a process's share, at most.
        view: view number; or several: pass p over the data (see `length`) takes the p-th, in a cycle.
        length: samples of the epoch; None = each once. Beyond the data, passes in further orders follow.
        places: views of each sample in a batch, rows that follow each other; sizes count samples.
        mix: mixes the samples of a batch where the data set says how; for training alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        stage: int = 0,
        epoch: int = 0,
        start_batch: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        num_workers: int = 0,
        rank: int = 0,
        world: int = 1,
        micro_batches: int = 1,
        view: int | Sequence[int] = 0,
        length: int | None = None,
        places: int = 1,
        mix: bool = False,
    ) -> None:
        self.dataset = dataset
        self.num_workers = num_workers
        self.start_batch = start_batch
        self._rank, self._world, self._micro_batches = rank, world, micro_batches
        self._views = torch.tensor([view] if isinstance(view, int) else list(view))
        self._key = (seed, stage, epoch)
        self._places, self._mixing = places, dataset.mixing if mix else None
        total = len(dataset) if length is None else length
        _check(dataset, batch_size, total, rank, world)
        if places > 1 and self._mixing is not None:
            raise RequestError(
                f"the method takes {places} views of each sample in a batch, and data.mix mixes samples",
                fix='data.mix = "none"',
            )
        self._sizes = batch_sizes(total, batch_size, world, drop_last=drop_last)
        self._order, self._passes = self._plan(total, shuffle)
        self._ends = torch.tensor(self._sizes, dtype=torch.int64).cumsum(0).tolist()

    def _plan(self, total: int, shuffle: bool) -> tuple[Tensor, Tensor]:
        """Positions of the epoch's samples in order, and the pass over the data that each belongs to."""
        number = len(self.dataset)
        passes = -(-total // number)
        plain = torch.arange(number)
        orders = [
            counter.permutation(number, "order", *self._key, turn) if shuffle else plain
            for turn in range(passes)
        ]
        return torch.cat(orders)[:total], torch.arange(passes).repeat_interleave(number)[:total]

    @property
    def num_batches(self) -> int:
        """Batches of the whole epoch, those before `start_batch` too."""
        return len(self._sizes)

    def __len__(self) -> int:
        return max(self.num_batches - self.start_batch, 0)

    def positions(self, batch: int) -> Tensor:
        """Positions of the samples of a whole batch, over all processes, in order; int64."""
        return self._order[self._ends[batch] - self._sizes[batch] : self._ends[batch]]

    def read(self, batch: int) -> list[dict[str, Any]]:
        """The micro-batches of a batch that belong to this process."""
        size, start = self._sizes[batch], self._ends[batch] - self._sizes[batch]
        mine = max(min(self._micro_batches, size // self._world), 1)
        slices = mine * self._world
        micros = []
        for part in range(self._rank * mine, (self._rank + 1) * mine):
            rows = torch.arange(part * size // slices, (part + 1) * size // slices)
            micros.append(self._samples(start + rows) if self._mixing is None else self._mixed(batch, rows))
        return micros

    def _samples(self, numbers: Tensor) -> dict[str, Any]:
        """The samples with these numbers in the order of the epoch, in all their views."""
        numbers = numbers.repeat_interleave(self._places)
        chosen = self._order[numbers]
        views = self._views[self._passes[numbers] % len(self._views)]
        views = view_number(views, torch.arange(len(views)) % self._places)
        return {"index": chosen, "view": views, **self.dataset.batch(chosen, views)}

    def _mixed(self, batch: int, rows: Tensor) -> dict[str, Any]:
        """Some rows of a batch, each mixed with its partner; every sample is read once."""
        assert self._mixing is not None
        size, key = self._sizes[batch], (*self._key, batch)
        partners = self._mixing.partners(size, *key)[rows]
        needed, where = torch.unique(torch.cat([rows, partners]), return_inverse=True)
        read = self._samples(self._ends[batch] - size + needed)
        own, theirs = (taken(read, part) for part in where.split(len(rows)))
        return self._mixing.mixed(own, theirs, *key)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        batches = range(self.start_batch, self.num_batches)
        if self.num_workers == 0:
            return map(self.read, batches)
        return self._read_ahead(list(batches))

    def _read_ahead(self, batches: list[int]) -> Iterator[list[dict[str, Any]]]:
        """The same through worker processes; nothing is drawn from the global generator."""
        reader: DataLoader[Any] = DataLoader(
            _Batches(self),  # type: ignore[arg-type]  # a map-style set by its two methods
            batch_size=None,
            sampler=batches,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )
        for got in reader:
            if isinstance(got, _Failure):
                raise got.error
            yield got


@dataclass
class _Failure:
    """An error on its way from a worker process, where raising it would wrap its message in a traceback."""

    error: LimbeckError


class _Batches:
    """The loader's batches by number, for torch's worker processes."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return self._loader.num_batches

    def __getitem__(self, batch: int) -> list[dict[str, Any]] | _Failure:
        try:
            return self._loader.read(batch)
        except LimbeckError as error:
            return _Failure(error)


def batch_sizes(total: int, batch_size: int, world: int = 1, *, drop_last: bool = False) -> list[int]:
    """The sizes of an epoch's batches, by the rule of `Loader`.

    >>> batch_sizes(130, 64), batch_sizes(129, 64), batch_sizes(150, 64)
    ([64, 66], [64, 65], [64, 64, 22])
    >>> batch_sizes(150, 64, drop_last=True)
    [64, 64]
    """
    sizes = [batch_size] * (total // batch_size)
    rest = total % batch_size
    if rest == 0 or drop_last:
        return sizes
    if sizes and rest < max(2, batch_size // _SMALLEST_PART, world):
        return [*sizes[:-1], sizes[-1] + rest]
    return [*sizes, rest]


def _check(dataset: Dataset, batch_size: int, total: int, rank: int, world: int) -> None:
    if batch_size < 1 or total < 0 or not 0 <= rank < world:
        raise RequestError(
            f"batch size {batch_size}, {total} samples, process {rank} of {world}: not possible"
        )
    if len(dataset) == 0:
        raise RequestError("the data set is empty", fix="check data.source, data.limit and data.labels")
    if min(batch_size, total) < world and total:
        raise RequestError(
            f"a batch of {min(batch_size, total)} samples cannot be spread over {world} processes",
            fix=f"train.batch_size of at least {world}, or fewer processes",
        )
