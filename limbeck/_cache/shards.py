"""The shard files of a cache: numpy arrays of records, written whole or not at all, read by memory map."""

from __future__ import annotations

import mmap
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from limbeck._cache.fields import first_damaged, seal
from limbeck.errors import RunError

#: A shard has at most so many records and so many bytes: what a kill loses, and what is held while writing.
_RECORDS, _BYTES = 4096, 32 << 20
#: Bytes of shards that were read and may stay in memory; the system reads so many around a record.
_MAPPED, _READ_AROUND = 256 << 20, 64 << 10
#: Shards that stay open: each holds a file.
_OPEN = 512
_MAGIC = b"\x93NUMPY\x02\x00"

Rows = np.ndarray[Any, Any]


class Shards:
    """The records of all samples in some views, `folder/view-V/SHARD.npy`.

    Args:
        folder: of the cache.
        dtype: of a record, see `Fields`.
        number: of samples.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], number: int) -> None:
        self.folder, self.dtype, self.number = folder, dtype, number
        self.size = max(16, min(_RECORDS, _BYTES // dtype.itemsize))
        self._mapped: OrderedDict[tuple[int, int], tuple[mmap.mmap, Rows]] = OrderedDict()
        self._touched = 0

    def __len__(self) -> int:
        return -(-self.number // self.size)

    def path(self, view: int, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"view-{view}" / f"{shard:06d}.npy"

    def span(self, shard: int) -> range:
        """The positions of the samples of a shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.number))

    def missing(self, view: int) -> list[int]:
        """The shards of a view that are not written yet."""
        return [shard for shard in range(len(self)) if not self.path(view, shard).is_file()]

    def write(self, view: int, shard: int, rows: Rows) -> None:
        """Puts a whole shard in place.

        Raises:
            OSError: the disk is full or the folder cannot be written; nothing is left behind.
        """
        seal(rows, view, self.span(shard).start)
        target = self.path(view, shard)
        draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "wb") as file:
                file.write(self._head(len(rows)))
                file.write(np.ascontiguousarray(rows).tobytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def sweep(self) -> None:
        """Removes what killed writers left behind; drafts of processes that live are left alone."""
        for draft in self.folder.glob("view-*/.*.draft"):
            if not alive(int(draft.suffixes[-2][1:])):
                draft.unlink(missing_ok=True)

    def read(self, views: Rows, places: Rows) -> Rows:
        """The records of some samples, each checked.

        Args:
            views: view numbers, int64 [B].
            places: positions of the samples, int64 [B].

        Returns:
            Records [B], in the order asked for.

        Raises:
            FileNotFoundError: a shard is not written yet.
            RunError: a shard is damaged; the message names file and record.
        """
        rows = np.empty(len(places), self.dtype)
        shards = places // self.size
        for view, shard in sorted(set(zip(views.tolist(), shards.tolist(), strict=True))):
            chosen = np.flatnonzero((views == view) & (shards == shard))
            rows[chosen] = self._map(view, shard)[places[chosen] - shard * self.size]
        self._let_go(len(rows))
        damaged = first_damaged(rows, views.tolist(), places.tolist())
        if damaged is not None:
            view, place = int(views[damaged]), int(places[damaged])
            raise self._damaged(
                self.path(view, place // self.size), f"record {place % self.size} has a wrong checksum"
            )
        return rows

    def check(self, view: int, shard: int) -> None:
        """Checks every byte of a shard; raises as `read`."""
        rows, span = np.array(self._open(view, shard)[1]), self.span(shard)
        damaged = first_damaged(rows, [view] * len(span), span)
        if damaged is not None:
            raise self._damaged(self.path(view, shard), f"record {damaged} has a wrong checksum")

    def views(self) -> list[int]:
        """The views of which there is at least a part."""
        folders = [path.name.removeprefix("view-") for path in self.folder.glob("view-*") if path.is_dir()]
        return sorted(int(name) for name in folders if name.lstrip("-").isdigit())

    def _map(self, view: int, shard: int) -> Rows:
        """A shard in memory as far as it is read; of very many, the least used one is let go."""
        key = (view, shard)
        if key not in self._mapped:
            self._mapped[key] = self._open(view, shard)
            if len(self._mapped) > _OPEN:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(key)
        return self._mapped[key][1]

    def _let_go(self, records: int) -> None:
        """Now and then gives back the memory that was read, so that it does not grow with the cache."""
        self._touched += records * max(self.dtype.itemsize, _READ_AROUND)
        if self._touched < _MAPPED or sys.platform == "win32":  # Windows takes pages back by itself
            return
        self._touched = 0
        for file, _ in self._mapped.values():
            file.madvise(mmap.MADV_DONTNEED)

    def _open(self, view: int, shard: int) -> tuple[mmap.mmap, Rows]:
        """Maps a shard after its size and its head were compared byte by byte with what they must be."""
        path, number = self.path(view, shard), len(self.span(shard))
        head = self._head(number)
        needed = len(head) + number * self.dtype.itemsize
        with open(path, "rb") as file:
            found, given = os.fstat(file.fileno()).st_size, file.read(len(head))
            if found != needed:
                raise self._damaged(path, f"it has {found:,} bytes, needed {needed:,}")
            if given != head:
                raise self._damaged(path, "its head is not that of this cache")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return mapped, np.frombuffer(mapped, self.dtype, number, len(head))

    def _head(self, number: int) -> bytes:
        """The first bytes of a shard: those of a `.npy` file, the same with any version of numpy."""
        described = np.lib.format.dtype_to_descr(self.dtype)
        text = f"{{'descr': {described!r}, 'fortran_order': False, 'shape': ({number},), }}"
        padding = -(len(_MAGIC) + 4 + len(text) + 1) % 64
        head = (text + " " * padding + "\n").encode("ascii")
        return _MAGIC + len(head).to_bytes(4, "little") + head

    def _damaged(self, path: Path, how: str) -> RunError:
        return RunError(f"{path} is damaged: {how}", fix="delete this file; the next run writes it again")


def damages(shards: Shards, views: Iterable[int], say: Callable[[int], None]) -> Iterator[str]:
    """What is wrong with the shards of some views, a sentence each; `say` hears of records checked."""
    for view in views:
        missing = set(shards.missing(view))
        for shard in range(len(shards)):
            if shard in missing:
                continue
            try:
                shards.check(view, shard)
            except RunError as error:
                yield error.message
            say(len(shards.span(shard)))


def alive(process: int) -> bool:
    """Whether another process with this number is there."""
    if process == os.getpid():
        return False  # its own draft, of a write that failed
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
