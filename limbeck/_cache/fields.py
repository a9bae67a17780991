"""What one stored answer holds: its fields, and the way from a teacher's record there and back."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from limbeck._fast.comparison import difference
from limbeck.errors import RequestError, RunError
from limbeck.losses.sparse import TopK, top_k
from limbeck.record import Record

#: Fields of an output of which only the largest entries are kept, beside `index` and `value`.
_SUMS = ("log_rest", "mean", "deviation", "log_rest_standardized")
_LAYER = "layer:"


@dataclass(frozen=True)
class Store:
    """How a cache keeps the answers.

    Args:
        dtype: of outputs and layers; float32 loses nothing, float16 halves the file.
        top_k: keep the k largest logits of each output and the mass of the others; None keeps all.
        temperatures: with `top_k`, those at which the mass of the others is kept.

    Raises:
        RequestError: a value outside its range.
    """

    dtype: Literal["float32", "float16"] = "float32"
    top_k: int | None = None
    temperatures: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16"):
            raise RequestError(f"dtype {self.dtype!r} of a cache; needed float32 or float16")
        if self.top_k is not None and self.top_k < 1:
            raise RequestError(f"top_k = {self.top_k}; needed at least 1, or none for all")
        if not self.temperatures or any(not value > 0 for value in self.temperatures):
            raise RequestError(f"temperatures {list(self.temperatures)}; needed numbers above 0")
        object.__setattr__(self, "temperatures", tuple(float(each) for each in self.temperatures))

    def described(self) -> dict[str, Any]:
        """Plain values, for the key of a cache; temperatures only where they count."""
        found = asdict(self)
        found["temperatures"] = list(self.temperatures) if self.top_k is not None else []
        return found


class Fields:
    """The layout of a stored answer: a packed numpy record that ends with its checksum.

    Args:
        first: a teacher's record of some samples.
        store: how it is kept.

    Raises:
        RequestError: the record cannot be kept so: it is not made of tensors with a row a sample.
    """

    def __init__(self, first: Record, store: Store) -> None:
        self.store = store
        self.shapes = {"": _shape("the output", first.output)}
        self.shapes |= {path: _shape(f"layer {path!r}", value) for path, value in first.layers.items()}
        kind = "<f4" if store.dtype == "float32" else "<f2"
        fields: list[Any] = self._output_fields(kind)
        fields += [(_LAYER + path, kind, shape) for path, shape in self.shapes.items() if path]
        self.dtype = np.dtype([*fields, ("checksum", "<u4")])

    def _output_fields(self, kind: str) -> list[Any]:
        shape, kept = self.shapes[""], self.store.top_k
        if kept is None:
            return [("output", kind, shape)]
        if not shape or kept > shape[-1]:
            size = shape[-1] if shape else 1
            raise RequestError(
                f"top_k = {kept} of outputs with {size} entries", fix="leave top_k out to keep all of them"
            )
        rows, sums = shape[:-1], (*shape[:-1], len(self.store.temperatures))
        place = "<u2" if shape[-1] <= 1 << 16 else "<u4"
        widths = {"log_rest": sums, "log_rest_standardized": sums, "mean": rows, "deviation": rows}
        entries = (*rows, kept)
        return [("index", place, entries), ("value", kind, entries), *((n, "<f4", widths[n]) for n in _SUMS)]

    @property
    def bytes(self) -> int:
        """Of one stored answer, with its checksum."""
        return self.dtype.itemsize

    def pack(self, record: Record, targets: Any, samples: Sequence[int]) -> np.ndarray[Any, Any]:
        """Rows of the file, without checksums.

        Args:
            record: what the teacher said of [B] samples.
            targets: their labels [B], which top-k keeps in any case; anything else is not looked at.
            samples: their identities, for messages.

        Raises:
            RunError: an answer has another shape, is not finite, or does not fit into float16.
        """
        rows = np.zeros(len(samples), self.dtype)
        values = {"": record.output, **record.layers}
        for path, shape in self.shapes.items():
            value = values[path]
            if tuple(value.shape[1:]) != shape:
                raise RunError(
                    f"the teacher's {path or 'output'} has the shape {tuple(value.shape[1:])} for sample "
                    f"{samples[0]}, and had {shape} before; a cache needs one shape",
                    fix='cache.mode = "off", or samples of one size',
                )
            self._check(path, value, samples)
            if path:
                rows[_LAYER + path] = _array(value)
        if self.store.top_k is None:
            rows["output"] = _array(record.output)
            return rows
        kept = top_k(
            record.output,
            self.store.top_k,
            self.store.temperatures,
            keep=_labels(record.output, targets),
            standardized=True,
        )
        for name in ("index", "value", *_SUMS):
            rows[name] = _array(getattr(kept, name))
        return rows

    def kept_mass(self, record: Record, targets: Any) -> float | None:
        """The mean probability of the kept classes at the highest temperature; None where all are kept."""
        if self.store.top_k is None:
            return None
        hottest = max(self.store.temperatures)
        kept = top_k(record.output, self.store.top_k, [hottest], keep=_labels(record.output, targets))
        return float(kept.log_probabilities(hottest)[0].exp().sum(-1).mean())

    def _check(self, path: str, value: Tensor, samples: Sequence[int]) -> None:
        wide = value.float().flatten(1)
        good = wide.isfinite().all(1)
        said = "is not finite"
        if self.store.dtype == "float16" and bool(good.all()):
            good, said = (wide.abs() <= torch.finfo(torch.float16).max).all(1), "does not fit float16"
        if not bool(good.all()):
            culprit = samples[int((~good).nonzero()[0])]
            name = f"layer {path!r}" if path else "output"
            fix = 'cache.dtype = "float32"' if "fit" in said else "look at the teacher and at this sample"
            raise RunError(f"the teacher's {name} for sample {culprit} {said}", fix=fix)

    def record(self, rows: np.ndarray[Any, Any], paths: Sequence[str], *, output: bool) -> Record:
        """What the teacher said, from rows of the file; float32."""
        layers = {path: _tensor(rows[_LAYER + path]) for path in paths}
        return Record(self._output(rows) if output else None, layers)

    def _output(self, rows: np.ndarray[Any, Any]) -> Tensor | TopK:
        if self.store.top_k is None:
            return _tensor(rows["output"])
        index = torch.from_numpy(rows["index"].astype(np.int64))
        return TopK(
            index,
            _tensor(rows["value"]),
            _tensor(rows["log_rest"]),
            self.store.temperatures,
            self.shapes[""][-1],
            mean=_tensor(rows["mean"]),
            deviation=_tensor(rows["deviation"]),
            log_rest_standardized=_tensor(rows["log_rest_standardized"]),
        )

    def differ(self, stored: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> float:
        """The largest difference of two answers to the same samples, relative to the largest value."""
        names = [name for name in self.dtype.names or () if name not in ("index", "checksum", *_SUMS)]
        return difference([_tensor(stored[name]) for name in names], [_tensor(now[name]) for name in names])


def seal(rows: np.ndarray[Any, Any], view: int, first: int) -> None:
    """Gives rows that follow each other their checksums, which say whose they are, too."""
    rows["checksum"] = _checksums(rows, [view] * len(rows), range(first, first + len(rows)))


def first_damaged(rows: np.ndarray[Any, Any], views: Sequence[int], places: Sequence[int]) -> int | None:
    """The first row whose checksum is wrong; None where all are right."""
    right = rows["checksum"] == _checksums(rows, views, places)
    return None if bool(right.all()) else int(np.argmin(right))


def _checksums(
    rows: np.ndarray[Any, Any], views: Sequence[int], places: Sequence[int]
) -> np.ndarray[Any, Any]:
    """CRC-32 of each row's identity and bytes: it finds every change of up to 32 bits in a row."""
    size = rows.dtype.itemsize
    raw = memoryview(np.ascontiguousarray(rows).tobytes())
    sums = np.empty(len(rows), np.uint32)
    for row, (view, place) in enumerate(zip(views, places, strict=True)):
        start = zlib.crc32(b"%d %d" % (view, place))
        sums[row] = zlib.crc32(raw[row * size : (row + 1) * size - 4], start)
    return sums


def _shape(what: str, value: Any) -> tuple[int, ...]:
    """The shape of one sample's part of a value."""
    if not isinstance(value, Tensor) or value.ndim == 0 or not value.is_floating_point():
        kind = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise RequestError(
            f"{what} of the teacher is {kind}; a cache holds floating tensors with a row a sample",
            fix='cache.mode = "off"',
        )
    return tuple(value.shape[1:])


def _labels(output: Tensor, targets: Any) -> Tensor | None:
    """The class that top-k keeps in any case: the label, or the teacher's own answer without one."""
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != output.shape[:-1]:
        return None
    targets = targets.to(output.device)
    known = (targets >= 0) & (targets < output.shape[-1])
    return torch.where(known, targets, output.argmax(-1))


def _array(value: Tensor) -> np.ndarray[Any, Any]:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()


def _tensor(values: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def described(fields: Fields) -> Mapping[str, Any]:
    """Shapes and size of an answer as plain values, for whoever reads a cache without its teacher."""
    return {
        "shapes": {path or "output": list(shape) for path, shape in fields.shapes.items()},
        "bytes": fields.bytes,
    }
