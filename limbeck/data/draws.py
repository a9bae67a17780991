"""View numbers, and the random numbers that a sample's view is drawn with."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from limbeck.data import counter

#: A view number is `view + PLACE * place`.
PLACE = 1 << 20


@overload
def view_number(view: int, place: int) -> int: ...
@overload
def view_number(view: Tensor, place: int | Tensor) -> Tensor: ...
def view_number(view: int | Tensor, place: int | Tensor) -> int | Tensor:
    """The number of a view that stands at a place among several views of one sample in a batch.

    Args:
        view: 0 unaugmented, 1, 2, ... drawn; less than `PLACE`.
        place: 0, 1, 2, ...

    >>> split_view(view_number(3, 2))
    (3, 2)
    """
    return view + PLACE * place


@overload
def split_view(number: int) -> tuple[int, int]: ...
@overload
def split_view(number: Tensor) -> tuple[Tensor, Tensor]: ...
def split_view(number: int | Tensor) -> tuple[int | Tensor, int | Tensor]:
    """View and place of a view number; see `view_number`."""
    return number % PLACE, number // PLACE


class Draws:
    """Random numbers of one batch, one or more for each sample and name.

    Args:
        seed: of the run.
        index: identity of each sample, int64 [B].
        number: view number of each sample, or of all.
    """

    def __init__(self, seed: int, index: Tensor, number: int | Tensor) -> None:
        numbers = torch.as_tensor(number).expand(len(index))
        views, self.place = split_view(numbers)
        self._own = counter.bits(seed, index, numbers)
        self._shared = counter.bits(seed, index, views) if bool(self.place.any()) else self._own

    def uniform(self, name: str, *, shared: bool = False) -> Tensor:
        """Numbers in [0, 1), float64 [B]; the same name gives the same numbers.

        Args:
            name: of the draw.
            shared: the same for all places of a view.
        """
        return counter.uniform(self._shared if shared else self._own, name)

    def uniforms(self, name: str, number: int | Tensor) -> Tensor:
        """Several numbers of a sample, float64 [B, number]; or those with some numbers, int64 [B, n]."""
        counted = torch.arange(number) if isinstance(number, int) else number
        return counter.uniform(self._own[:, None], name, counted)

    def integers(self, name: str, number: int | Tensor) -> Tensor:
        """Whole numbers 0..number-1, int64 [B]; a tensor gives each sample its own range."""
        return (self.uniform(name) * number).long()

    def seeds(self, name: str) -> Tensor:
        """64 bits for a generator of each sample, int64 [B]."""
        return counter.bits(self._own, name)

    def of(self, rows: Tensor) -> Draws:
        """The draws of some samples, by their positions in the batch, int64 [b]."""
        other = object.__new__(Draws)
        other.place, other._own, other._shared = self.place[rows], self._own[rows], self._shared[rows]
        return other
