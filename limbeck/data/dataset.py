"""Data sets: whole batches by position, with the identity of every sample."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.task import Task

if TYPE_CHECKING:
    from limbeck.data.mixing import Mixing
    from limbeck.data.views import Views

Indices = Tensor | Sequence[int]
#: A tensor with a leading dimension of samples, or several by name (keyword inputs of a model).
Inputs = Tensor | Mapping[str, Tensor]

#: Keys of a batch that a column cannot take.
_OWN_KEYS = ("inputs", "targets", "index", "view", "count", "mixed")


class Dataset(ABC):
    """Samples by position, read a batch at a time.

    A sample has a position (0..len-1 in this set) and an index, its identity: `subset` and relabelling keep
    the index of the original set, so views and stored teacher outputs go on belonging to the sample.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """The samples at some positions, as a batch in normal form.

        Args:
            indices: positions in this set, int64 [B].
            view: 0 = unaugmented; v >= 1 is drawn from (seed, sample, v). One for all samples, or int64 [B];
                of several views of a sample in one batch the numbers of `view_number`.

        Returns:
            `inputs`: pixels from 0 to 1 [B, C, H, W], ids, rows, or a mapping of keyword inputs;
            `targets`: [B] or [B, ...], -1 (NaN for real values) where there is none;
            `index`: identities, int64 [B]; `view`: int64 [B]; and every column.
        """

    @abstractmethod
    def targets(self) -> Tensor:
        """All targets, leading dimension = samples; -1 (NaN for real values) = unlabelled."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Equal for equal contents, whatever the machine: 64 hexadecimal digits."""

    def index(self) -> Tensor:
        """Identity of every sample, int64 [N]; the position where the set is an original."""
        return torch.arange(len(self))

    @property
    def columns(self) -> Mapping[str, Tensor]:
        """Further values of each sample by name, leading dimension = samples; they appear in every batch."""
        return {}

    @property
    def augmented(self) -> bool:
        """Whether views other than 0 may differ from view 0; as the set that this one is a view of."""
        return self.base is not None and self.base.augmented

    @property
    def mixing(self) -> Mixing | None:
        """How training batches are mixed (mixup, cutmix); as the set that this one is a view of."""
        return None if self.base is None else self.base.mixing

    @property
    def mixes(self) -> bool:
        """Whether training batches are mixed: the answers of a teacher to them cannot be stored."""
        return self.mixing is not None

    @property
    def base(self) -> Dataset | None:
        """The set that this one is a view of; None for one that holds or reads samples itself."""
        return None

    def subset(self, indices: Indices) -> Dataset:
        """The samples at these positions, in this order, with their index values."""
        return Selection(self, positions(indices, len(self)))

    def with_targets(self, targets: Tensor) -> Dataset:
        """The same samples with other targets, by position."""
        return Selection(self, torch.arange(len(self)), targets=targets)

    def with_columns(self, columns: Mapping[str, Tensor]) -> Dataset:
        """The same samples with further values, by position; they appear in every batch under their names."""
        return Selection(self, torch.arange(len(self)), columns=columns)

    def augment(self, views: Views) -> Dataset:
        """The same samples, whose views 1, 2, ... are drawn by `views`; refused for what is not a picture."""
        from limbeck.data.derived import Augmented

        return Augmented(self, views)

    def mix(self, mixing: Mixing) -> Dataset:
        """The same samples, of which a `Loader` mixes training batches; refused for what has no classes."""
        from limbeck.data.derived import Mixed

        return Mixed(self, mixing)


class Selection(Dataset):
    """Some samples of another set, in some order, where asked with other targets or further columns.

    Args:
        base: the other set.
        positions: positions in it, int64 [N].
        targets: replaces its targets, [N, ...].
        columns: further values by name, [N, ...] each.
    """

    def __init__(
        self,
        base: Dataset,
        positions: Tensor,
        *,
        targets: Tensor | None = None,
        columns: Mapping[str, Tensor] | None = None,
    ) -> None:
        given = {**(columns or {}), **({} if targets is None else {"targets": targets})}
        for name, value in given.items():
            if value.ndim == 0 or len(value) != len(positions):
                raise RequestError(
                    f"{name} has shape {tuple(value.shape)}; needed {len(positions)} rows, one a sample"
                )
        for name in columns or {}:
            if name in _OWN_KEYS or name in base.columns:
                raise RequestError(f"a column cannot be named {name!r}: the batch has that already")
        self._base = base
        self.positions = positions
        self._targets = targets
        self._columns = dict(columns or {})

    def __len__(self) -> int:
        return len(self.positions)

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """The batch of the other set, with this one's targets and columns."""
        chosen = positions(indices, len(self))
        batch = dict(self._base.batch(self.positions[chosen], view))
        if self._targets is not None:
            batch["targets"] = self._targets[chosen]
        batch.update((name, value[chosen]) for name, value in self._columns.items())
        return batch

    def targets(self) -> Tensor:
        """Its own targets, else those of the chosen samples."""
        return self._base.targets()[self.positions] if self._targets is None else self._targets

    def fingerprint(self) -> str:
        """Of the other set, the choice, the targets and the columns."""
        targets = {} if self._targets is None else {"targets": self._targets}
        return digest("selection", self._base.fingerprint(), self.positions, targets, self._columns)

    def index(self) -> Tensor:
        """Those that the samples have in the other set."""
        return self._base.index()[self.positions]

    @property
    def columns(self) -> Mapping[str, Tensor]:
        """Those of the other set, for the chosen samples, and its own."""
        theirs = {name: value[self.positions] for name, value in self._base.columns.items()}
        return {**theirs, **self._columns}

    @property
    def base(self) -> Dataset:
        """The other set."""
        return self._base


class ArrayDataset(Dataset):
    """Samples in memory.

    Args:
        inputs: uint8 pixels [N, C, H, W] (batches hold them from 0 to 1), any other tensor with a leading
            dimension of samples, or a mapping of such tensors (keyword inputs of a model).
        targets: [N] or [N, ...]; -1 (NaN for real values) or None where there is none.
        index: identity of each sample, int64 [N]; by default its position.

    >>> data = ArrayDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, -1]))
    >>> data.subset([3, 1]).batch([0])["index"].tolist()
    [3]
    """

    def __init__(self, inputs: Inputs, targets: Tensor | None = None, *, index: Tensor | None = None) -> None:
        named: dict[str, Tensor] = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
        if not named:
            raise RequestError("a data set needs at least one input", fix='{"input_ids": ...}')
        number = len(next(iter(named.values())))
        if targets is not None:
            named["targets"] = targets
        if index is not None:
            named["index"] = index
        for name, value in named.items():
            if len(value) != number:
                raise RequestError(f"{name} has {len(value)} samples, the inputs have {number}")
            if value.dtype == torch.uint8 and value.ndim != 4 and name not in ("targets", "index"):
                raise RequestError(
                    f"{name} is uint8 of shape {tuple(value.shape)}; pixels need [N, C, H, W]",
                    fix="add the channel dimension, or convert what is not pixels",
                )
        self._inputs = {key: value for key, value in named.items() if key not in ("targets", "index")}
        self._bare = not isinstance(inputs, Mapping)
        self._targets = torch.full((number,), -1) if targets is None else _whole(targets)
        self._index = torch.arange(number) if index is None else index.long()

    def __len__(self) -> int:
        return len(self._index)

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """The samples at these positions; views do not differ."""
        chosen = positions(indices, len(self))
        inputs = {name: _pixels(value[chosen]) for name, value in self._inputs.items()}
        return {
            "inputs": inputs["inputs"] if self._bare else inputs,
            "targets": self._targets[chosen],
            "index": self._index[chosen],
            "view": torch.as_tensor(view).expand(len(chosen)),
        }

    def targets(self) -> Tensor:
        """All targets."""
        return self._targets

    def fingerprint(self) -> str:
        """Over every byte of inputs, targets and index: about a second a gigabyte; computed at every call."""
        return digest("array", self._inputs, self._targets, self._index)

    def index(self) -> Tensor:
        """Identity of every sample."""
        return self._index


@dataclass
class Splits:
    """The data of a run: training, validation (chooses checkpoints) and test (read once, at the end).

    Attributes:
        task: what the targets mean; holds the class names where there are classes.
        name: the source, as the recipe names it.
        notes: what was decided or noticed while reading, a sentence each, for the plan and the report.
        division: where the split was drawn here: index values of each part, by name; to be written down.
        reading: how a raw sample becomes an input, plain values for a `config.json`: `kind` is "image",
            "row", "text" or "tensor", with what that kind needs.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    task: Task
    name: str
    notes: list[str] = field(default_factory=list)
    division: dict[str, Tensor] | None = None
    reading: dict[str, Any] = field(default_factory=lambda: {"kind": "tensor"})

    @property
    def classes(self) -> list[str] | None:
        """Class names in the order of the outputs; None where the task has none."""
        return cast("list[str] | None", getattr(self.task, "classes", None))

    def parts(self) -> dict[str, Dataset]:
        """The parts there are, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in found.items() if part is not None}

    def fingerprint(self) -> str:
        """Of all parts and of the class names."""
        parts = {name: part.fingerprint() for name, part in self.parts().items()}
        return digest("splits", self.classes or [], parts)


def as_dataset(data: Any, *, targets: Tensor | None = None) -> Dataset:
    """Any common form of data as a `Dataset`.

    Args:
        data: a `Dataset` (returned as it is), a pair `(inputs, targets)` of tensors or arrays, bare inputs, a
            mapping of keyword inputs with the targets under `labels`, a torch map-style data set, or a
            Hugging Face `datasets.Dataset`.
        targets: all targets of a map-style data set, to save reading every sample for them.
    """
    from limbeck.data.adapt import adapted

    return data if isinstance(data, Dataset) else adapted(data, targets)


def positions(indices: Indices, number: int) -> Tensor:
    """Positions as int64 [B]; refuses what lies outside 0..number-1."""
    chosen = torch.as_tensor(indices, dtype=torch.int64)
    if chosen.ndim != 1:
        raise RequestError(f"positions of shape {tuple(chosen.shape)}; needed one dimension")
    if len(chosen) and (int(chosen.min()) < 0 or int(chosen.max()) >= number):
        raise RequestError(
            f"positions {int(chosen.min())} to {int(chosen.max())} in a set of {number} samples"
        )
    return chosen


def digest(*parts: Any) -> str:
    """SHA-256 over nested texts, numbers, bytes, tensors, lists and mappings, the same on any machine."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            value = part.detach().cpu().contiguous()
            state.update(f"tensor {value.dtype} {tuple(value.shape)}:".encode())
            state.update(value.flatten().view(torch.uint8).numpy().data)
        elif isinstance(part, Mapping):
            state.update(digest(*(item for key in sorted(part) for item in (key, part[key]))).encode())
        elif isinstance(part, (list, tuple)):
            state.update(digest(len(part), *part).encode())
        else:
            raw = part if isinstance(part, bytes) else str(part).encode()
            state.update(f"{type(part).__name__} {len(raw)}:".encode() + raw)
    return state.hexdigest()


def describe_inputs(inputs: Any) -> str:
    """Shape and type of a batch's inputs, in words for a message."""
    if isinstance(inputs, Mapping):
        return f"a mapping of {', '.join(sorted(inputs))}"
    if isinstance(inputs, Tensor):
        return f"{str(inputs.dtype).removeprefix('torch.')} {list(inputs.shape[1:])}"
    return type(inputs).__name__


def _pixels(value: Tensor) -> Tensor:
    """Pixels from 0 to 1; other values as they are."""
    return value.float() / 255 if value.dtype == torch.uint8 else value


def _whole(targets: Tensor) -> Tensor:
    """Whole-number targets as int64, others as they are."""
    return targets if targets.is_floating_point() else targets.long()
