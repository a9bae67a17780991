"""Other forms of data as a `Dataset`: tensors, arrays, torch's map-style data sets, Hugging Face's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, TensorDataset, default_collate

from limbeck.data import counter
from limbeck.data.dataset import ArrayDataset, Dataset, Indices, digest, positions
from limbeck.errors import LimbeckError, RequestError, RunError

#: Names under which mappings hold the targets.
TARGET_NAMES = ("targets", "labels", "label", "target")

#: What code of the user's, or a library below it, raises for a sample that it cannot read.
_BROKEN = (OSError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError)


def adapted(data: Any, targets: Tensor | None = None) -> Dataset:
    """See `limbeck.data.as_dataset`."""
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, (Tensor, np.ndarray)):
        data = (data,) if targets is None else (data, targets)
    if isinstance(data, (tuple, list)) and 1 <= len(data) <= 2 and isinstance(data[0], (Tensor, np.ndarray)):
        return ArrayDataset(_tensor(data[0]), _tensor(data[1]) if len(data) == 2 else targets)
    if type(data).__module__.split(".")[0] == "datasets":
        from limbeck.data.hub import from_hub

        return from_hub(data)
    if isinstance(data, Mapping):
        return _from_mapping(data, targets)
    if callable(getattr(data, "__getitem__", None)) and callable(getattr(data, "__len__", None)):
        return MapDataset(data, targets=targets)
    raise RequestError(
        f"data of type {type(data).__name__}; needed a pair (inputs, targets) of tensors, a mapping, or a "
        "data set with a length whose samples can be had by number",
        fix="a stream has no sample identities: read it into a data set with __getitem__ and __len__",
    )


def _from_mapping(data: Mapping[str, Any], targets: Tensor | None) -> Dataset:
    values = {name: _tensor(value) for name, value in data.items()}
    for name in TARGET_NAMES:
        if name in values:
            targets = values.pop(name)
    index = values.pop("index", None)
    inputs = values["inputs"] if list(values) == ["inputs"] else values
    return ArrayDataset(inputs, targets, index=index)


def _tensor(value: Any) -> Tensor:
    """A tensor of the same values; pictures [N, H, W] and [N, H, W, C] of bytes become [N, C, H, W]."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
    except TypeError as error:
        raise RequestError(f"a {type(value).__name__} of other things than numbers is no input") from error
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    if tensor.dtype != torch.uint8:
        return tensor
    if tensor.ndim == 3:
        return tensor[:, None]
    if tensor.ndim == 4 and tensor.shape[3] in (1, 3) and tensor.shape[1] not in (1, 3):
        return tensor.permute(0, 3, 1, 2).contiguous()
    return tensor


class MapDataset(Dataset):
    """Samples of a data set that gives one at a time by its number (torch's map-style, torchvision's).

    While a sample is read, the global generators of torch, numpy and Python are seeded from (seed, sample,
    view), and restored afterwards: transforms that draw from them give one view in any order and with any
    number of workers. View 0 is one such draw too, for a transform cannot be asked to change nothing. A
    transform that holds a generator of its own stays as it is.

    Args:
        items: gives `(input, target)`, a mapping, or bare inputs. Pillow pictures become pixels from 0 to 1.
        targets: all targets, [N]; else `items.targets` if it agrees with the first sample, else all are read.
        seed: of the draws.
    """

    def __init__(self, items: Any, *, targets: Tensor | None = None, seed: int = 0) -> None:
        self._items = items
        self._seed = seed
        self._targets = targets
        if targets is not None and len(targets) != len(items):
            raise RequestError(f"{len(targets)} targets for {len(items)} samples")

    def __len__(self) -> int:
        return len(self._items)

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """The samples at these positions, stacked."""
        chosen = positions(indices, len(self))
        views = torch.as_tensor(view).expand(len(chosen))
        samples = [self._sample(i, v) for i, v in zip(chosen.tolist(), views.tolist(), strict=True)]
        batch = _stacked(samples, chosen)
        if self._targets is not None:
            batch["targets"] = self._targets[chosen]
        return {"targets": torch.full((len(chosen),), -1), **batch, "index": chosen, "view": views}

    def _sample(self, number: int, view: int) -> Any:
        with seeded(self._seed, number, view):
            try:
                return _plain(self._items[number])
            except LimbeckError:
                raise
            except _BROKEN as error:
                name = type(self._items).__name__
                message = f"sample {number} of {name} cannot be read: {type(error).__name__}: {error}"
                raise RunError(message, where=f"{name}[{number}]") from error

    def targets(self) -> Tensor:
        """As given, as the wrapped set lists them, or read from every sample once."""
        if self._targets is None:
            listed = _listed_targets(self._items)
            self._targets = self._read_targets() if listed is None else listed
        return self._targets

    def _read_targets(self) -> Tensor:
        parts = [self.batch(block)["targets"] for block in _blocks(len(self))]
        return torch.cat(parts) if parts else torch.full((0,), -1)

    def fingerprint(self) -> str:
        """Over view 0 of every sample, so each is read once."""
        parts = [self.batch(block) for block in _blocks(len(self))]
        return digest("map", [[part["inputs"], part["targets"]] for part in parts])

    @property
    def augmented(self) -> bool:
        """True: its transforms may draw."""
        return True


def find_unsteady(data: Dataset, samples: int = 8, view: int = 1) -> list[int]:
    """The index of samples that look different when they are read twice in one view.

    A transform that holds a generator of its own draws on with every read: in each worker process the same
    numbers, and again in every epoch. Stored answers do not belong to such samples.

    Args:
        data: the samples.
        samples: how many of the first ones are read.
        view: view number.
    """
    chosen = list(range(min(samples, len(data))))
    first, second = (data.batch(chosen, view) for _ in range(2))
    unsteady = torch.zeros(len(chosen), dtype=torch.bool)
    for one, other in zip(_tensors(first["inputs"]), _tensors(second["inputs"]), strict=True):
        unsteady |= torch.tensor([not torch.equal(a, b) for a, b in zip(one, other, strict=True)])
    return cast(list[int], first["index"][unsteady].tolist())


def _tensors(inputs: Any) -> list[Tensor]:
    return list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Inside, torch (CPU), numpy and Python draw from a seed; afterwards from where they were."""
    seed = int(counter.bits("seeded", *parts)) & 0xFFFFFFFF
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # what older transforms draw from
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _plain(value: Any) -> Any:
    """Pictures and bytes of pixels inside a sample as pixels from 0 to 1."""
    if isinstance(value, Image.Image):
        value = torch.from_numpy(np.array(value.convert("L" if value.mode in ("1", "L") else "RGB")))
        value = value[None] if value.ndim == 2 else value.permute(2, 0, 1)
    if isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 3:
        return value.float() / 255
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(item) for item in value)
    return value


def _stacked(samples: list[Any], numbers: Tensor) -> dict[str, Any]:
    """Samples as one batch in normal form."""
    try:
        stacked = default_collate(samples)
    except (RuntimeError, TypeError, KeyError) as error:
        raise RequestError(
            f"the samples {numbers.tolist()[:8]} do not make one batch: {_shapes(samples)}",
            fix="give all samples one form and size, by a transform",
        ) from error
    if isinstance(stacked, Tensor):
        return {"inputs": stacked}
    if isinstance(stacked, Mapping):
        targets = next((stacked[name] for name in TARGET_NAMES if name in stacked), None)
        rest = {name: value for name, value in stacked.items() if name not in (*TARGET_NAMES, "index")}
        inputs = rest["inputs"] if list(rest) == ["inputs"] else rest
        return {"inputs": inputs} if targets is None else {"inputs": inputs, "targets": _single(targets)}
    if len(stacked) == 1:
        return {"inputs": stacked[0]}
    return {"inputs": stacked[0], "targets": _single(stacked[1])}


def _blocks(number: int) -> list[range]:
    """The positions 0..number-1 in runs of 256."""
    return [range(first, min(first + 256, number)) for first in range(0, number, 256)]


def _single(targets: Any) -> Any:
    """Real values in single precision; Python's floats were collated to double."""
    return targets.float() if isinstance(targets, Tensor) and targets.is_floating_point() else targets


def _shapes(samples: list[Any]) -> str:
    first = [sample[0] if isinstance(sample, tuple) and sample else sample for sample in samples]
    kinds = (str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__ for value in first)
    return ", ".join(dict.fromkeys(kinds))


def _listed_targets(items: Any) -> Tensor | None:
    """The targets that a set lists beside its samples, as torchvision does, if they are the samples' own."""
    if isinstance(items, Subset):
        inner = _listed_targets(items.dataset)
        return None if inner is None else inner[torch.as_tensor(list(items.indices))]
    listed = getattr(items, "targets", None)
    if not isinstance(listed, (list, np.ndarray, Tensor)) or len(listed) != len(items) or len(items) == 0:
        return None
    values = torch.as_tensor(cast(Any, listed))
    with seeded(0):
        first = items[0]
    own = first[1] if isinstance(first, tuple) and len(first) > 1 else None
    if values.is_floating_point() or own is None or not torch.equal(torch.as_tensor(own), values[0]):
        return None  # a target transform changes them, or they are something else
    return values.long()
