"""Divergences on dense predictions: class logits at the locations (anchors, points, pixels) of detectors."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape
from limbeck.losses.reductions import reduce_weighted
from limbeck.losses.soft import bernoulli_divergence, softened_divergence

Activation = Literal["softmax", "sigmoid"]


def dense_divergence(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    activation: Activation = "softmax",
    weight: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """T^2 KL(teacher || student) at each location, averaged over those that count.

    Args:
        student: class logits, [B, N, K].
        teacher: class logits of the same shape; detached.
        temperature: T > 0.
        activation: `softmax` one class a location; `sigmoid` independent classes, summed.
        weight: [B, N], >= 0; all 1 if None.
        reduction: `mean` sum of weight * value / sum of weight, 0 when no location counts; `none` the
            unweighted value at each location.

    Returns:
        A scalar, or [B, N] for `none`. 0 at student = teacher.
    """
    check_same_shape(student, teacher, "class logits")
    if activation not in ("softmax", "sigmoid"):
        raise RequestError(f"activation {activation!r}; needed softmax or sigmoid")
    divergence = softened_divergence if activation == "softmax" else bernoulli_divergence
    values = divergence(student, teacher, temperature, "none")
    if reduction == "none":
        return values
    if weight is None:
        return values.mean()
    if weight.shape != values.shape:
        raise RequestError(
            f"weights {tuple(weight.shape)} for class logits {tuple(student.shape)}; "
            f"needed {tuple(values.shape)}"
        )
    return reduce_weighted(values, weight.to(values.dtype))
