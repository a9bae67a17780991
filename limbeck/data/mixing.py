"""Mixed samples: mixup and cutmix of a whole batch, a pure function of seed, stage, epoch and batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.data import counter
from limbeck.data.counter import Part
from limbeck.errors import RequestError, nearest

#: Zhang et al. 2018, section 3 (ImageNet); Yun et al. 2019, section 3.
ALPHA: Mapping[str, float] = {"mixup": 0.2, "cutmix": 1.0}
#: Pairs of numbers that are tried for a share; with each at least pi / 4 are taken.
_TRIES = 64


@dataclass(frozen=True)
class Mixing:
    """How the samples of a batch are mixed, each with a partner of the same batch.

    One share and one order of partners is drawn for a batch, as in the code of the papers.

        mixup    x = share * own + (1 - share) * partner                  (Zhang et al. 2018)
        cutmix   x = own with a box of the partner, 1 - share = its area  (Yun et al. 2019)

    The loss is share * L(own target) + (1 - share) * L(partner's target).

    Args:
        kind: mixup or cutmix.
        alpha: > 0; the share is drawn from Beta(alpha, alpha), for cutmix before the box is cut at the
            picture's edge. 0.2 for mixup and 1 for cutmix in the papers on ImageNet.
    """

    kind: str
    alpha: float

    def __post_init__(self) -> None:
        if self.kind not in ALPHA:
            near = nearest(str(self.kind), ALPHA)
            raise RequestError(
                f"data.mix = {self.kind!r}; there are none, {', '.join(ALPHA)}",
                near=near[1:],
                fix=f"data.mix = {near[0]!r}" if near else None,
            )
        if not 0 < self.alpha < math.inf:
            raise RequestError(
                f"data.mix_alpha = {self.alpha}; needed a number above 0",
                fix=f"data.mix_alpha = {ALPHA[self.kind]}",
            )

    def describe(self) -> str:
        """All that a mixed batch depends on beside its samples and its number."""
        return f"{self.kind}, alpha {self.alpha}"

    def check(self, inputs: Any, described: str) -> None:
        """Refuses inputs that cannot be mixed.

        Args:
            inputs: of a batch.
            described: what they are, in words.
        """
        axes = {"mixup": 2, "cutmix": 4}[self.kind]
        if not isinstance(inputs, Tensor) or inputs.ndim < axes or not inputs.is_floating_point():
            wanted = "pictures [C, H, W]" if self.kind == "cutmix" else "pictures or rows of numbers"
            raise RequestError(
                f"data.mix = {self.kind!r} is for {wanted}; these samples are {described}",
                fix='data.mix = "none"',
            )

    def partners(self, size: int, *key: Part) -> Tensor:
        """Who is mixed with whom in a batch: positions in it, int64 [size]."""
        return counter.permutation(size, "mix.partner", *key)

    def mixed(self, own: Mapping[str, Any], partners: Mapping[str, Any], *key: Part) -> dict[str, Any]:
        """Rows of a batch mixed with those of their partners.

        Args:
            own: some or all rows of a batch in normal form.
            partners: those of their partners.
            key: what the batch is a function of: seed, stage, epoch, batch.

        Returns:
            The batch `own` with mixed `inputs`, `view` -1 (no stored answer belongs to it) and `mixed`:
            `targets` of the partners, and `share`, the weight of the own target, [B].
        """
        share = symmetric_beta(self.alpha, "mix.share", *key)
        inputs, share = _KINDS[self.kind](own["inputs"], partners["inputs"], share, key)
        rows = len(own["index"])
        return {
            **own,
            "inputs": inputs,
            "view": torch.full((rows,), -1),
            "mixed": {"targets": partners["targets"], "share": torch.full((rows,), share)},
        }


def mixing_of(kind: str, alpha: float | None = None) -> Mixing | None:
    """The mixing that a recipe asks for by `data.mix` and `data.mix_alpha`; None for "none".

    Raises:
        RequestError: there is no such mixing, or alpha is given without one, or is not above 0.
    """
    if kind == "none":
        if alpha is not None:
            raise RequestError(
                f'data.mix_alpha = {alpha} is only read with data.mix = "mixup" or "cutmix"',
                fix="leave data.mix_alpha out",
            )
        return None
    return Mixing(kind, ALPHA.get(kind, 1.0) if alpha is None else alpha)


def symmetric_beta(alpha: float, *key: Part) -> float:
    """A number from Beta(alpha, alpha) that is a pure function of the key.

    Above 1/2 in closed form (Ulrich 1984), else by Joehnk's rejection (1964), in logarithms, as powers of
    small numbers would vanish.

    Args:
        alpha: > 0.
        key: what the number belongs to.
    """
    # From 0 (excluded) to 1.
    first, second = (1 - counter.uniform(*key, name, torch.arange(_TRIES)) for name in ("first", "second"))
    if alpha > 0.5:
        radius = math.sqrt(1 - float(first[0]) ** (2 / (2 * alpha - 1)))
        return 0.5 + 0.5 * radius * math.cos(2 * math.pi * float(second[0]))
    one, other = first.log() / alpha, second.log() / alpha
    taken = int((torch.logaddexp(one, other) <= 0).int().argmax())
    return float(torch.sigmoid(one[taken] - other[taken]))


def _mixup(own: Tensor, partners: Tensor, share: float, key: tuple[Part, ...]) -> tuple[Tensor, float]:
    return own * share + partners * (1 - share), share


def _cutmix(own: Tensor, partners: Tensor, share: float, key: tuple[Part, ...]) -> tuple[Tensor, float]:
    """A box whose centre is anywhere in the picture, cut at its edge; the share is what is left of it."""
    height, width = own.shape[2:]
    spans = []
    for name, size in (("row", height), ("column", width)):
        length = int(size * math.sqrt(1 - share))
        centre = int(float(counter.uniform(*key, f"mix.{name}")) * size)
        spans.append((max(centre - length // 2, 0), min(centre + length // 2, size)))
    (top, bottom), (left, right) = spans
    inputs = own.clone()
    inputs[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return inputs, 1 - (bottom - top) * (right - left) / (height * width)


_KINDS: Mapping[str, Callable[[Tensor, Tensor, float, tuple[Part, ...]], tuple[Tensor, float]]] = {
    "mixup": _mixup,
    "cutmix": _cutmix,
}
