"""Ranks of the entries of a row: soft ones, which have a gradient, and ordinary ones.

Soft ranks are the projection of the scaled values onto the permutahedron of (K, .., 1) (Blondel, Teboul,
Berthet, Djolonga 2020, arXiv 2002.08871), or sums of sigmoids of differences. The projection is
an isotonic regression; here all rows are solved at once, without a loop over entries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.reductions import widen

#: Runs of so many entries are cheapest to fit from the means of all their pieces.
_AT_ONCE = 16


def soft_rank(values: Tensor, strength: float) -> Tensor:
    """Soft ranks by projection: ascending, the largest entry near K.

    With theta = values / strength in falling order s, w = (K, .., 1) and v the nearest non-increasing
    sequence to s - w, the ranks are s - v: affine in the values over each block of equal v, and exactly the
    rank where an entry is alone in its block. The gradient is (g - mean of g over its block) / strength, so
    entries alone in a block get none. strength -> 0 gives ordinary ranks without gradient; a large one gives
    (K + 1) / 2 + (values - mean) / strength. On standardised values 3 / K keeps the order in sight.

    Args:
        values: [N, K], finite; half precision is widened.
        strength: > 0, in units of the values.

    Returns:
        [N, K], between 1 and K, each row with the sum K (K + 1) / 2; equal entries have equal ranks. The
        gradient can be differentiated again. Costs O(K log^2 K) a row.

    >>> soft_rank(torch.tensor([[0.1, 3.0, -2.0]]), 0.1).round(decimals=4)
    tensor([[2., 3., 1.]])
    """
    _check_above_zero("strength", strength)
    ordered, order = (widen(values) / strength).sort(-1, descending=True)
    places = _places(ordered)
    blocks = _blocks(_pooled((ordered - places).detach()))
    # Means of values and of places apart: their difference would lose digits, and a single entry its exact 0.
    ranks = ordered - _block_means(ordered, blocks) + _block_means(places, blocks)
    return torch.zeros_like(ranks).scatter(-1, order, ranks)


def hard_rank(values: Tensor) -> Tensor:
    """Ordinary ranks, ascending from 1; equal entries share the mean of their places. No gradient.

    Args:
        values: [N, K]; half precision is widened.

    Returns:
        [N, K].
    """
    ordered, order = widen(values).detach().sort(-1, descending=True)
    equal = torch.zeros_like(ordered, dtype=torch.bool)
    equal[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    ranks = _block_means(_places(ordered), _blocks(equal))
    return torch.zeros_like(ranks).scatter(-1, order, ranks)


def sigmoid_rank(values: Tensor, scale: float) -> Tensor:
    """Soft ranks with a gradient everywhere: r_k = 1 + sum_{j != k} sigmoid((x_k - x_j) / scale).

    Args:
        values: x, [N, K]; half precision is widened.
        scale: > 0, in units of the values; 2 / K is a good one for standardised values.

    Returns:
        [N, K], between 1 and K, each row with the sum K (K + 1) / 2. Holds N K^2 numbers on its way.
    """
    _check_above_zero("scale", scale)
    values = widen(values)
    differences = values.unsqueeze(-1) - values.unsqueeze(-2)
    return 0.5 + (differences / scale).sigmoid().sum(-1)  # an entry against itself gives the other half


def _check_above_zero(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise RequestError(f"{name} {value} of soft ranks; needed a number above 0")


def _places(ordered: Tensor) -> Tensor:
    """The ranks of entries in falling order: (K, .., 1) in every row."""
    length = ordered.shape[-1]
    return torch.arange(length, 0, -1, dtype=ordered.dtype, device=ordered.device).expand_as(ordered)


def _blocks(joined: Tensor) -> Tensor:
    """Numbers of blocks [..., K] from 0, where `joined` says which entries belong to the one before them."""
    return (~joined).long().cumsum(-1) - 1


def _block_means(values: Tensor, blocks: Tensor) -> Tensor:
    """Each entry replaced by the mean over its block, [..., K]."""
    zeros = torch.zeros_like(values)
    counts = zeros.scatter_add(-1, blocks, torch.ones_like(values))
    sums = zeros.scatter_add(-1, blocks, values)
    return (sums / counts.clamp(min=1)).gather(-1, blocks)


def _pooled(values: Tensor) -> Tensor:
    """Which entries share a block of the nearest non-increasing sequence with the one before, [N, K].

    Short runs are fitted at once. Neighbouring runs that are fitted are then fitted together, until one is
    left: of two non-increasing runs only the end of the left and the start of the right one change, to one
    common value.
    """
    rows, length = values.shape
    if length <= _AT_ONCE:
        return _pooled_at_once(values)
    size = 1 << (length - 1).bit_length()
    # Padding below all entries never joins them.
    low = (values.amin(-1, keepdim=True) - 1).expand(rows, size - length)
    runs = torch.cat((values, low), -1).reshape(rows, size // _AT_ONCE, _AT_ONCE)
    inside = _pooled_at_once(runs)
    fitted, joined = _block_means(runs, _blocks(inside)), inside.reshape(rows, size)
    half = _AT_ONCE
    while half < size:
        runs = fitted.reshape(rows, size // (2 * half), 2 * half)
        before, after, mean = _overlap(runs[..., :half], runs[..., half:])
        place = torch.arange(2 * half, device=values.device)
        inside = (place >= half - before) & (place < half + after)
        fitted = torch.where(inside, mean, runs)
        joined = joined | (inside & (place > half - before)).reshape(rows, size)
        half *= 2
    return joined[:, :length]


def _pooled_at_once(runs: Tensor) -> Tensor:
    """The same for short runs [..., h], from the means of all their pieces, h^2 of them.

    Blocks are the edges of the least concave curve above the sums of the first entries: one starts at k where
    every piece that ends before k has a larger mean than every piece that starts at k.
    """
    sums = F.pad((runs - runs[..., :1]).cumsum(-1), (1, 0))  # from the first entry, so that numbers are small
    place = torch.arange(sums.shape[-1], device=runs.device)
    lengths = place - place.unsqueeze(1)
    means = (sums.unsqueeze(-2) - sums.unsqueeze(-1)) / lengths  # [.., from, to]; only from < to is read
    ending = means.masked_fill(lengths <= 0, torch.inf).amin(-2)[..., 1:-1]
    starting = means.masked_fill(lengths <= 0, -torch.inf).amax(-1)[..., 1:-1]
    return F.pad(ending <= starting, (1, 0))


def _overlap(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What changes when two non-increasing runs [N, G, h] are fitted as one.

    f(v) = sum_left min(l - v, 0) + sum_right max(r - v, 0) falls with v, and its root is the common value:
    the entries of the left below it and of the right above it, and their mean. So an entry of the left
    changes where f of it is above 0, one of the right where f of it is below 0.

    Returns:
        How many of the left's last and of the right's first entries change, and their mean, [N, G, 1] each.
    """
    # Counted from the seam: sums are then of small numbers, and keep their digits in float32.
    seam = (left[..., -1:] + right[..., :1]) / 2
    rising, falling = (left - seam).flip(-1).contiguous(), (right - seam).contiguous()
    sums = [F.pad(each.cumsum(-1), (1, 0)) for each in (rising, falling)]
    number = torch.arange(1, left.shape[-1] + 1, device=left.device).expand_as(left)

    def f(values: Tensor, below: Tensor, above: Tensor) -> Tensor:
        return sums[0].gather(-1, below) + sums[1].gather(-1, above) - (below + above) * values

    above = torch.searchsorted(-falling, -rising)
    below = torch.searchsorted(rising, falling)
    wrong = rising[..., :1] < falling[..., :1]
    before = ((f(rising, number, above) > 0) & wrong).sum(-1, keepdim=True)
    after = ((f(falling, below, number) < 0) & wrong).sum(-1, keepdim=True)
    total = sums[0].gather(-1, before) + sums[1].gather(-1, after)
    return before, after, total / (before + after).clamp(min=1) + seam
