"""Parts of deep mutual learning and its dense form that no other method has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape
from limbeck.losses.reductions import Count, reduce_samples, widen
from limbeck.losses.soft import Activation


def legacy_divergence(
    student: Tensor, teacher: Tensor, epsilon: float = 1e-8, *, count: Count = None
) -> Tensor:
    """The KL as the official code of deep mutual learning writes it: sum p log(eps + p / (q + eps)), T = 1.

    For checks against that code only: it saturates at log(1 / eps) = 18.4 under confident disagreement, where
    its gradient dies; `softened_divergence` does not. (There, as here, the mean is over samples.)

    Args:
        student: logits, [B, K].
        teacher: logits of the same shape; detached.
        epsilon: 1e-8 in the code.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar; log(1 + eps) or less at student = teacher.
    """
    check_same_shape(student, teacher)
    target, predicted = F.softmax(widen(teacher.detach()), -1), F.softmax(widen(student), -1)
    each = (target * torch.log(epsilon + target / (predicted + epsilon))).sum(-1)
    return reduce_samples(each, count=count)


def foreground_weight(
    target: Tensor,
    assigned: Tensor,
    *,
    activation: Activation = "softmax",
    background: int = 0,
    threshold: float = 0.5,
) -> Tensor:
    """Where a dense term counts: at the locations assigned to an object, and where the target sees one.

    Args:
        target: class logits of the network that gives the targets, [B, N, K].
        assigned: [B, N], 1 (or true) at the locations that the assigner gave to an object.
        activation: of the head; `softmax` has a class for the background.
        background: which one it is, -1 for the last; not read for `sigmoid`.
        threshold: the best score of a foreground class must exceed it.

    Returns:
        [B, N], 0 or 1 (or what `assigned` holds, where that is larger), no gradient.
    """
    check_locations(assigned, target)
    logits = widen(target.detach())
    if activation == "sigmoid":
        scores = logits.sigmoid()
    else:
        kept = [k for k in range(logits.shape[-1]) if k != background % logits.shape[-1]]
        scores = logits.softmax(-1)[..., kept]
    seen = scores.amax(-1) > threshold
    return torch.maximum(assigned.to(logits.dtype), seen.to(logits.dtype))


def check_locations(weight: Tensor, target: Tensor) -> None:
    """Refuses weights that are not one a location, [B, N], of class logits [B, N, K]."""
    if weight.shape != target.shape[:-1]:
        raise RequestError(
            f"a mask {tuple(weight.shape)} for class logits {tuple(target.shape)}; "
            f"needed {tuple(target.shape[:-1])}"
        )
