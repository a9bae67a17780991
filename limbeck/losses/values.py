"""Distillation of real-valued outputs; no temperature. Outputs should be in normalised units.

Legend: r student outputs, u teacher outputs, g targets, [B, D] each.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape
from limbeck.losses.reductions import Count, Reduction, reduce_samples, widen


def squared_error(
    student: Tensor, teacher: Tensor, reduction: Reduction = "batchmean", *, count: Count = None
) -> Tensor:
    """Mean over values of (r - u)^2, then over samples.

    Args:
        student: r, [B, D].
        teacher: u, [B, D]; detached.
        reduction: over samples, see `reduce_samples`.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, or [B] for `none`. 0 at student = teacher.
    """
    check_same_shape(student, teacher, "values")
    each = (widen(student) - widen(teacher.detach())).square().mean(-1)
    return reduce_samples(each, reduction, count=count)


def smooth_absolute_error(
    student: Tensor,
    teacher: Tensor,
    reduction: Reduction = "batchmean",
    *,
    beta: float = 1.0,
    count: Count = None,
) -> Tensor:
    """Smooth L1, mean over values, then over samples: d^2 / (2 beta) for |d| < beta, else |d| - beta / 2.

    Args:
        student: r, [B, D] (boxes: [B, N, 4]).
        teacher: u of the same shape; detached.
        reduction: over samples, see `reduce_samples`.
        beta: > 0, where the square ends.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, or [B] for `none`. 0 at student = teacher.
    """
    check_same_shape(student, teacher, "values")
    each = F.smooth_l1_loss(widen(student), widen(teacher.detach()), beta=beta, reduction="none").mean(-1)
    return reduce_samples(each, reduction, count=count)


def bounded_error(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    margin: float = 0.0,
    reduction: Reduction = "batchmean",
    *,
    count: Count = None,
) -> Tensor:
    """The teacher as a bound (Chen et al. 2017): e where e + margin > e_u, else 0.

    With e = |r - g|^2 and e_u = |u - g|^2, summed over values. The indicator has no gradient.

    Args:
        student: r, [B, D].
        teacher: u, [B, D]; detached.
        targets: g, [B, D].
        margin: m >= 0.
        reduction: over samples, see `reduce_samples`.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, or [B] for `none`. At student = teacher: 0 with margin 0, the student's error otherwise.
    """
    check_same_shape(student, teacher, "values")
    if margin < 0:
        raise RequestError(f"margin {margin}; needed a number >= 0")
    goal = widen(targets)
    error = (widen(student) - goal).square().sum(-1)
    bound = (widen(teacher.detach()) - goal).square().sum(-1)
    active = (error.detach() + margin > bound).to(error.dtype)
    return reduce_samples(active * error, reduction, count=count)
