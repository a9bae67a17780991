"""Views of pictures: augmentations drawn from (seed, sample, view number).

A stored teacher output belongs to a view of a sample; the student sees the very same pixels because the draws
depend on nothing else: not on the epoch's order, the batch, the worker, or a global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data import counter
from limbeck.errors import RequestError, nearest

#: Raised when a draw or an augmentation changes its meaning: stored outputs of other versions do not fit.
VERSION = 1

#: Pixels of zeros around a picture before it is cropped to its old size (He et al. 2016, section 4.2).
CROP_PADDING = 4


class Draws:
    """Random numbers of one batch, one for each sample and name.

    Args:
        seed: of the run.
        index: identity of each sample, int64 [B].
        view: view number of each sample, or of all.
    """

    def __init__(self, seed: int, index: Tensor, view: int | Tensor) -> None:
        self._key = counter.bits(seed, index, view)

    def uniform(self, name: str) -> Tensor:
        """Numbers in [0, 1), float64 [B]; the same name gives the same numbers."""
        return counter.uniform(self._key, name)

    def integers(self, name: str, number: int) -> Tensor:
        """Whole numbers 0..number-1, int64 [B]."""
        return (self.uniform(name) * number).long()


#: Pixels [B, C, H, W] and the draws of their samples -> pixels of the same shape.
Augmentation = Callable[[Tensor, Draws], Tensor]


def crop(pixels: Tensor, draws: Draws) -> Tensor:
    """A window of the old size at a random place of the picture, padded with zeros on each side."""
    number, channels, height, width = pixels.shape
    padded = F.pad(pixels, (CROP_PADDING,) * 4)
    top = draws.integers("crop.top", 2 * CROP_PADDING + 1)
    left = draws.integers("crop.left", 2 * CROP_PADDING + 1)
    stride = padded.shape[3]
    window = (torch.arange(height)[:, None] * stride + torch.arange(width)).reshape(-1)
    places = ((top * stride + left)[:, None] + window)[:, None].expand(-1, channels, -1)
    return padded.reshape(number, channels, -1).gather(2, places).reshape(pixels.shape)


def flip(pixels: Tensor, draws: Draws) -> Tensor:
    """Left and right swapped for half of the samples."""
    return torch.where((draws.uniform("flip") < 0.5)[:, None, None, None], pixels.flip(3), pixels)


#: By name, as a recipe gives them. Each draws under names of its own, so adding one changes no other.
AUGMENTATIONS: Mapping[str, Augmentation] = {"crop": crop, "flip": flip}


class Views:
    """Turns pictures into their views; view 0 is the picture as it is.

    Args:
        seed: of the run.
        augment: names out of `AUGMENTATIONS`, applied in this order.

    >>> pixels = torch.rand(2, 3, 8, 8)
    >>> views = Views(0, ["crop", "flip"])
    >>> torch.equal(views(pixels, torch.tensor([5, 9]), 0), pixels)
    True
    """

    def __init__(self, seed: int, augment: Sequence[str]) -> None:
        for name in augment:
            if name not in AUGMENTATIONS:
                raise RequestError(
                    f"there is no augmentation {name!r}; there are {', '.join(sorted(AUGMENTATIONS))}",
                    near=nearest(name, AUGMENTATIONS),
                )
        if len(set(augment)) < len(augment):
            raise RequestError(f"an augmentation is named twice: {', '.join(augment)}", fix="name each once")
        self.seed = seed
        self.augment = tuple(augment)

    def __call__(self, pixels: Tensor, index: Tensor, view: int | Tensor) -> Tensor:
        """The views of a batch.

        Args:
            pixels: [B, C, H, W].
            index: identity of each sample, int64 [B].
            view: view number of all samples, or of each, int64 [B]; 0 leaves the sample unchanged.

        Returns:
            Pixels of the same shape and type.
        """
        numbers = torch.as_tensor(view).expand(len(index))
        changed = numbers != 0
        if not self.augment or not bool(changed.any()):
            return pixels
        draws = Draws(self.seed, index, numbers)
        result = pixels
        for name in self.augment:
            result = AUGMENTATIONS[name](result, draws)
        return result if bool(changed.all()) else torch.where(changed[:, None, None, None], result, pixels)

    def describe(self) -> str:
        """All that the pixels of a view depend on beside sample and view number; part of fingerprints."""
        return f"views {VERSION}, seed {self.seed}, {'+'.join(self.augment) or 'unaugmented'}"
