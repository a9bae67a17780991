"""Data sets that show the pictures of another one in other ways: augmented, mixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limbeck.data.dataset import Dataset, Indices, describe_inputs, digest, positions
from limbeck.data.mixing import Mixing
from limbeck.data.views import Views, view_number
from limbeck.errors import RequestError


class _Derived(Dataset):
    """Another set with the same samples in the same order."""

    def __init__(self, base: Dataset) -> None:
        self._base = base

    def __len__(self) -> int:
        return len(self._base)

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """The batch of the other set."""
        return self._base.batch(indices, view)

    def targets(self) -> Tensor:
        """Those of the other set."""
        return self._base.targets()

    def index(self) -> Tensor:
        """Those of the other set."""
        return self._base.index()

    @property
    def columns(self) -> Mapping[str, Tensor]:
        """Those of the other set."""
        return self._base.columns

    @property
    def base(self) -> Dataset:
        """The other set."""
        return self._base


class Augmented(_Derived):
    """Another set of pictures, whose views 1, 2, ... are augmented.

    Args:
        base: batches of pixels [B, C, H, W].
        views: what draws the views.

    Raises:
        RequestError: the samples are no pictures, or not such as an augmentation takes.
    """

    def __init__(self, base: Dataset, views: Views) -> None:
        super().__init__(base)
        self.views = views
        if views.augment and len(base):
            first = base.batch([0])
            _check_pictures(first["inputs"], views)
            views(first["inputs"], first["index"], view_number(1, 1))  # refuses what it cannot take

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """The batch of the other set with the pixels of the view.

        Samples that stand several times in succession are read once, unless the other set draws views too.
        """
        chosen = positions(indices, len(self))
        once, repeats = (chosen, None)
        if not _differs_by_view(self._base):
            once, repeats = torch.unique_consecutive(chosen, return_inverse=True)
        if repeats is None or len(once) == len(chosen):
            batch = dict(self._base.batch(chosen, view))
        else:
            batch = taken(self._base.batch(once), repeats)
            batch["view"] = torch.as_tensor(view).expand(len(chosen))
        batch["inputs"] = self.views(batch["inputs"], batch["index"], view)
        return batch

    def fingerprint(self) -> str:
        """Of the other set and of what its views depend on."""
        return digest("augmented", self._base.fingerprint(), self.views.describe())

    @property
    def augmented(self) -> bool:
        """Whether any augmentation draws."""
        return self.views.drawn or self._base.augmented


def _differs_by_view(data: Dataset | None) -> bool:
    """Whether a set, or one that it is a view of, gives other pixels for other views or places."""
    while data is not None:
        if data.augmented or (isinstance(data, Augmented) and data.views.augment):
            return True
        data = data.base
    return False


class Mixed(_Derived):
    """Another set of samples with one class each, whose training batches are mixed; see `Mixing`.

    Mixing belongs to a batch: `batch` gives the samples as they are, and `Loader(..., mix=True)` mixes.

    Args:
        base: batches of pixels [B, C, H, W], or of other floating inputs [B, ...] for mixup.
        mixing: how.

    Raises:
        RequestError: the samples cannot be mixed, or have no classes.
    """

    def __init__(self, base: Dataset, mixing: Mixing) -> None:
        super().__init__(base)
        self._mixing = mixing
        if len(base):
            first = base.batch([0])
            mixing.check(first["inputs"], describe_inputs(first["inputs"]))
        targets = base.targets()
        if targets.ndim != 1 or targets.is_floating_point():
            raise RequestError(
                f"data.mix = {mixing.kind!r} mixes two samples of one class each; these targets are "
                f"{str(targets.dtype).removeprefix('torch.')} {list(targets.shape)}",
                fix='data.mix = "none"',
            )

    @property
    def mixing(self) -> Mixing:
        """How training batches are mixed."""
        return self._mixing

    def fingerprint(self) -> str:
        """Of the other set and of how it is mixed."""
        return digest("mixed", self._base.fingerprint(), self._mixing.describe())


def taken(batch: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Some rows of a batch, int64 [b]: of each tensor in it, also in a mapping of inputs."""
    return {
        name: taken(value, rows) if isinstance(value, Mapping) else value[rows]
        for name, value in batch.items()
    }


def _check_pictures(inputs: Any, views: Views) -> None:
    """Refuses inputs that are no pictures, and pixels out of 0..1 where values have a meaning."""
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        raise RequestError(
            f"data.augment = {list(views.names)} is for pictures [C, H, W]; these samples are "
            f"{describe_inputs(inputs)}",
            fix="leave data.augment out",
        )
    coloured = [each.name for each in views.augment if each.unit_range]
    low, high = float(inputs.min()), float(inputs.max())
    if coloured and not (low >= 0 and high <= 1):
        raise RequestError(
            f"data.augment: {coloured[0]} is for pixels from 0 to 1; these are from {low:.3g} to {high:.3g}",
            fix="leave normalisation to the networks, which bring their own",
        )
