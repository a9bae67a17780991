"""Distances between features of student and teacher."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape
from limbeck.losses.reductions import Count, reduce_samples, widen


def feature_error(
    student: Tensor,
    teacher: Tensor,
    reduction: Literal["mean", "batchmean", "sum", "none"] = "mean",
    *,
    mask: Tensor | None = None,
    count: Count = None,
) -> Tensor:
    """Squared error between two features of one shape.

    Args:
        student: [B, C, H, W], [B, L, D] or [B, D].
        teacher: the same shape; detached.
        reduction: `mean` over all values; `batchmean` sum over a sample's values, mean over samples;
            `sum`; `none` the mean over each sample's values, [B].
        mask: [B, L], true at the positions that count, for [B, L, D] alone. `mean` is then over valid
            positions and D, `none` over each sample's; what stands at other positions is never read.
        count: divides in place of the number of samples (with a mask and `mean`: of valid positions),
            where a loop counts over micro-batches and processes.

    Returns:
        A scalar, or [B] for `none`. 0 at student = teacher.
    """
    check_same_shape(student, teacher, "features")
    if mask is None:
        square = (widen(student) - widen(teacher.detach())).square().flatten(1)
        width = max(square.shape[1], 1)
        if reduction == "none":
            return square.mean(1)
        each = square.sum(1)
        return reduce_samples(each, reduction, width=width, count=count)
    _check_mask(mask, student)
    keep = mask.bool().unsqueeze(-1)
    difference = widen(student).masked_fill(~keep, 0) - widen(teacher.detach()).masked_fill(~keep, 0)
    each = difference.square().flatten(1).sum(1)
    width, lengths = student.shape[-1], mask.sum(1)
    if reduction == "none":
        return each / (lengths.clamp(min=1) * width)
    if reduction == "mean" and count is None:
        count = lengths.sum().clamp(min=1)
    return reduce_samples(each, reduction, width=width, count=count)


def _check_mask(mask: Tensor, feature: Tensor) -> None:
    if feature.ndim != 3 or mask.shape != feature.shape[:2]:
        raise RequestError(
            f"a mask {tuple(mask.shape)} for features {tuple(feature.shape)}; [B, L] goes with [B, L, D]"
        )
