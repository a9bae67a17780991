"""The shard files of a cache: numpy arrays of records, written whole or not at all, read record by record."""

from __future__ import annotations

import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from limbeck._cache.fields import first_damaged, seal
from limbeck.errors import RunError

#: A shard has at most so many records and so many bytes: what a kill loses, and what is held while writing.
_RECORDS, _BYTES = 4096, 32 << 20
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
        self._files: OrderedDict[tuple[int, int], tuple[BinaryIO, int]] = OrderedDict()
        weakref.finalize(self, _close, self._files)

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
        size = self.dtype.itemsize
        raw = bytearray()
        for view, place in zip(views.tolist(), places.tolist(), strict=True):
            shard, number = divmod(place, self.size)
            file, start = self._file(view, shard)
            record = _read_at(file, size, start + number * size)
            if len(record) < size:
                raise self._damaged(self.path(view, shard), f"it ends before record {number}")
            raw += record
        rows = np.frombuffer(raw, self.dtype, len(places))
        damaged = first_damaged(rows, views.tolist(), places.tolist())
        if damaged is not None:
            view, place = int(views[damaged]), int(places[damaged])
            raise self._damaged(
                self.path(view, place // self.size), f"record {place % self.size} has a wrong checksum"
            )
        return rows

    def check(self, view: int, shard: int) -> None:
        """Checks every byte of a shard; raises as `read`."""
        span = self.span(shard)
        file, _ = self._open(view, shard)
        with file:
            rows = np.frombuffer(file.read(), self.dtype, len(span))
        damaged = first_damaged(rows, [view] * len(span), span)
        if damaged is not None:
            raise self._damaged(self.path(view, shard), f"record {damaged} has a wrong checksum")

    def views(self) -> list[int]:
        """The views of which there is at least a part."""
        folders = [path.name.removeprefix("view-") for path in self.folder.glob("view-*") if path.is_dir()]
        return sorted(int(name) for name in folders if name.lstrip("-").isdigit())

    def _file(self, view: int, shard: int) -> tuple[BinaryIO, int]:
        """The open file of a shard and where its records begin; of very many, the least used is closed."""
        key = (view, shard)
        if key not in self._files:
            self._files[key] = self._open(view, shard)
            if len(self._files) > _OPEN:
                self._files.popitem(last=False)[1][0].close()
        self._files.move_to_end(key)
        return self._files[key]

    def _open(self, view: int, shard: int) -> tuple[BinaryIO, int]:
        """Opens a shard at its first record, after size and head were compared with what they must be."""
        path, number = self.path(view, shard), len(self.span(shard))
        head = self._head(number)
        needed = len(head) + number * self.dtype.itemsize
        file = open(path, "rb", buffering=0)  # noqa: SIM115 (it stays open)
        found, given = os.fstat(file.fileno()).st_size, file.read(len(head))
        if found == needed and given == head:
            return file, len(head)
        file.close()
        if found != needed:
            raise self._damaged(path, f"it has {found:,} bytes, needed {needed:,}")
        raise self._damaged(path, "its head is not that of this cache")

    def _head(self, number: int) -> bytes:
        """The first bytes of a shard: those of a `.npy` file, the same with any version of numpy."""
        described = np.lib.format.dtype_to_descr(self.dtype)
        text = f"{{'descr': {described!r}, 'fortran_order': False, 'shape': ({number},), }}"
        padding = -(len(_MAGIC) + 4 + len(text) + 1) % 64
        head = (text + " " * padding + "\n").encode("ascii")
        return _MAGIC + len(head).to_bytes(4, "little") + head

    def _damaged(self, path: Path, how: str) -> RunError:
        return RunError(f"{path} is damaged: {how}", fix="delete this file; the next run writes it again")


def _close(files: Mapping[Any, tuple[BinaryIO, int]]) -> None:
    for file, _ in files.values():
        file.close()


def _read_at(file: BinaryIO, size: int, offset: int) -> bytes:
    """Bytes of a file; where the system can, without moving its position, which forked processes share."""
    if sys.platform == "win32":
        file.seek(offset)
        return file.read(size)
    return os.pread(file.fileno(), size, offset)


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
