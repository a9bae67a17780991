"""Views of pictures: augmentations drawn from (seed, sample, view number).

A stored teacher output belongs to a view of a sample; the student sees the very same pixels because the draws
depend on nothing else: not on the epoch's order, the batch, the worker, or a global generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.data.augment import Augment, Augmentation, augment_of
from limbeck.data.augmentations import AUGMENTATIONS
from limbeck.data.draws import PLACE, Draws, split_view, view_number
from limbeck.errors import RequestError, require

__all__ = ["PLACE", "VERSION", "Draws", "Views", "split_view", "view_number"]

#: Raised when a draw or an augmentation changes its meaning: stored outputs of other versions do not fit.
VERSION = 1


class Views:
    """Turns pictures into their views; view 0 is the picture as it is.

    Several views of a sample may stand in one batch. Their numbers are `view_number(view, place)`: what the
    places share (flip) is drawn from the view, all else from both, and "rotate" turns by the place alone.

    Args:
        seed: of the run.
        augment: applied in this order; each a name, or a mapping of `name` and options: crop, flip,
            resized-crop, colour, erase, rotate, simclr, randaugment.

    Raises:
        RequestError: there is no such augmentation or option, a value is out of its range, one is named
            twice, or needs a package that is not installed.

    >>> pixels = torch.rand(2, 3, 8, 8)
    >>> views = Views(0, ["flip", {"name": "crop", "padding": 2}])
    >>> torch.equal(views(pixels, torch.tensor([5, 9]), 0), pixels)
    True
    """

    def __init__(self, seed: int, augment: Sequence[Augmentation]) -> None:
        self.seed = seed
        self.augment: tuple[Augment, ...] = tuple(augment_of(entry) for entry in augment)
        if len(set(self.names)) < len(self.names):
            raise RequestError(
                f"data.augment: an augmentation is named twice: {', '.join(self.names)}", fix="name each once"
            )
        self._packages = [_version(each) for each in self.augment if each.needs is not None]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the augmentations, in their order."""
        return tuple(each.name for each in self.augment)

    @property
    def drawn(self) -> bool:
        """Whether views other than 0 differ from view 0 at the same place."""
        return any(not each.by_place for each in self.augment)

    def __call__(self, pixels: Tensor, index: Tensor, view: int | Tensor) -> Tensor:
        """The views of a batch.

        Args:
            pixels: [B, C, H, W].
            index: identity of each sample, int64 [B].
            view: view number of all samples, or of each, int64 [B]; view 0 leaves the sample unaugmented,
                but turned by its place.

        Returns:
            Pixels of the same shape and type.
        """
        numbers = torch.as_tensor(view).expand(len(index))
        if not self.augment or not bool(numbers.any()):
            return pixels
        if bool((numbers < 0).any()):
            raise RequestError("there is no view below 0; -1 marks a batch of mixed samples")
        draws = Draws(self.seed, index, numbers)
        changed = split_view(numbers)[0] != 0
        whole, none = bool(changed.all()), not bool(changed.any())
        for each in self.augment:
            if each.by_place or not none:
                result = AUGMENTATIONS[each.name](pixels, draws, each)
                kept = each.by_place or whole
                pixels = result if kept else torch.where(changed[:, None, None, None], result, pixels)
        return pixels

    def describe(self) -> str:
        """All that the pixels of a view depend on beside sample and view number; part of fingerprints."""
        shown = "+".join(each.described() for each in self.augment) or "unaugmented"
        return ", ".join([f"views {VERSION}, seed {self.seed}, {shown}", *self._packages])


def _version(augment: Augment) -> str:
    """The package that does an augmentation, with its version: another one may draw otherwise."""
    assert augment.needs is not None
    package, extra = augment.needs
    module = require(package, extra, f"data.augment: {augment.name}")
    return f"{package} {str(module.__version__).partition('+')[0]}"  # builds of a version compute alike
