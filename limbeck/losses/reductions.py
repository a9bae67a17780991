"""Reductions of values by sample and by position, exact over micro-batches and processes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limbeck.errors import RequestError

Reduction = Literal["batchmean", "sum", "mean", "none"]
TokenReduction = Literal["token_mean", "sequence_mean", "batchmean", "sum", "none"]
Count = float | Tensor | None


def widen(value: Tensor) -> Tensor:
    """Half precision to float32, everything else unchanged.

    Losses are computed in float32 or wider also under autocast: CPU autocast leaves softmax in bfloat16,
    and 1e-8 is 0 in float16.
    """
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def reduce_samples(
    values: Tensor, reduction: Reduction = "batchmean", *, width: int = 1, count: Count = None
) -> Tensor:
    """Reduces one value a sample.

    Args:
        values: [B], or [B, ...] where samples have several positions.
        reduction: `batchmean` sum / B; `sum`; `mean` sum / (number of values * width), the default of
            torch's KLDivLoss, which is `width` times too small for a divergence; `none`.
        width: what each value was summed over (the number of classes); read by `mean` alone.
        count: divides in place of the number of samples (`batchmean`) or of values (`mean`), where a loop
            counts over micro-batches and processes.

    Returns:
        A scalar, or `values` for `none`.
    """
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    if reduction == "batchmean":
        return values.sum() / _divisor(len(values) if count is None else count)
    if reduction == "mean":
        return values.sum() / _divisor(values.numel() if count is None else count) / width
    raise RequestError(f"reduction {reduction!r}; needed batchmean, sum, mean or none")


def reduce_tokens(
    values: Tensor, mask: Tensor, reduction: TokenReduction = "token_mean", *, count: Count = None
) -> Tensor:
    """Reduces one value a valid position; 0 with zero gradient when no position is valid.

    Args:
        values: [N], the values at the N valid positions, in the order of `values_of_all[mask]`.
        mask: [B, L], true at the valid positions.
        reduction: `token_mean` sum / N; `sequence_mean` mean over the sequences that have a valid position
            of the mean over each; `batchmean` sum / B, which grows with length; `sum`; `none`.
        count: divides in place of N, of the number of non-empty sequences or of B, where a loop counts
            over micro-batches and processes.

    Returns:
        A scalar, or `values` for `none`.
    """
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    lengths = mask.sum(1)
    if reduction == "token_mean":
        return values.sum() / _divisor(lengths.sum() if count is None else count)
    if reduction == "batchmean":
        return values.sum() / _divisor(len(mask) if count is None else count)
    if reduction == "sequence_mean":
        each = values / lengths.unsqueeze(1).expand(mask.shape)[mask]
        return each.sum() / _divisor((lengths > 0).sum() if count is None else count)
    raise RequestError(f"reduction {reduction!r}; needed token_mean, sequence_mean, batchmean, sum or none")


def reduce_weighted(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean: sum of weight * value / sum of weight; 0 with zero gradient when all weights are 0.

    Args:
        values: finite, also where the weight is 0.
        weight: the same shape, >= 0.
    """
    total = weight.sum()
    return (weight * values).sum() / torch.where(total > 0, total, torch.ones_like(total))


def _divisor(count: float | Tensor) -> float | Tensor:
    """A count to divide by; nothing counted means a sum of 0, and so a mean of 0."""
    return torch.where(count > 0, count, 1) if isinstance(count, Tensor) else count or 1
