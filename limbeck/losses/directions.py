"""Directions of features: their angles, the similarities between views, contrast by class (Ding et al. 2021).

MLKD, arXiv 2012.00573; its text was not available, so equations are those of the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape, check_temperature
from limbeck.losses.reductions import Count, Reduction, reduce_samples, widen

_SHORT = 1e-8  # torch's bound in its cosine similarity


def unit(rows: Tensor, least: float = _SHORT) -> Tensor:
    """Rows at length 1; a row that is not longer than `least` becomes 0 with gradient 0.

    Such a row has no direction. Dividing it by the bound alone would give gradients of 1 / least.

    Args:
        rows: [N, D]; half precision is widened.
        least: > 0, in units of the entries.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    rows = widen(rows)
    length = torch.linalg.vector_norm(rows.detach(), dim=1, keepdim=True)
    kept = torch.where(length > least, rows, torch.ones_like(rows))
    scaled = kept / torch.linalg.vector_norm(kept, dim=1, keepdim=True)
    return torch.where(length > least, scaled, torch.zeros_like(rows))


def direction_error(
    student: Tensor, teacher: Tensor, reduction: Reduction = "batchmean", *, count: Count = None
) -> Tensor:
    """Squared distance of unit vectors, 2 - 2 cos(student, teacher).

    Args:
        student: [N, D].
        teacher: the same shape; detached.
        reduction: over rows, see `reduce_samples`.
        count: number of rows to divide by, where a loop counts them.

    Returns:
        A scalar, or [N] for `none`; 0 to 4 a row. 0 at equal directions, 2 for a row of zeros.
    """
    check_same_shape(student, teacher, "features")
    cosine = (unit(student) * unit(teacher.detach())).sum(1)
    return reduce_samples(2 - 2 * cosine, reduction, count=count)


def similarities(features: Tensor, views: int) -> Tensor:
    """Cosines of every further view to the first view of every sample.

    Args:
        features: [B * V, D], the V views of a sample one after the other.
        views: V >= 2.

    Returns:
        [B * (V - 1), B], from -1 to 1; a row a further view, in their order, a column a sample.
    """
    if views < 2 or len(features) % views:
        raise RequestError(f"{len(features)} features are not {views} views of each sample")
    directions = unit(features).reshape(-1, views, features.shape[1])
    found: Tensor = directions[:, 1:].flatten(0, 1) @ directions[:, 0].T
    return found


def similarity_divergence(
    student: Tensor,
    teacher: Tensor,
    views: int,
    temperature: float = 0.5,
    reduction: Reduction = "batchmean",
    *,
    count: Count = None,
) -> Tensor:
    """KL(softmax(S_t / tau) || softmax(S_s / tau)) of the similarities of a view to all samples; no tau^2.

    Args:
        student: [B * V, D_s], see `similarities`.
        teacher: [B * V, D_t]; detached. Widths may differ.
        views: V >= 2.
        temperature: tau > 0; the code's value is 0.5.
        reduction: over the B * (V - 1) further views, see `reduce_samples`.
        count: number of further views to divide by, where a loop counts them.

    Returns:
        A scalar, or [B * (V - 1)] for `none`. 0 at equal similarities, and for a single sample.
    """
    check_temperature(temperature)
    if len(student) != len(teacher):
        raise RequestError(f"{len(student)} student features and {len(teacher)} teacher features")
    own = (similarities(student, views) / temperature).log_softmax(1)
    target = (similarities(teacher.detach(), views).to(own.dtype) / temperature).log_softmax(1)
    return reduce_samples((target.exp() * (target - own)).sum(1), reduction, count=count)


@torch.no_grad()
def same_nearest(student: Tensor, teacher: Tensor, views: int) -> Tensor:
    """To how many further views the same other sample is nearest in both networks, as a part from 0 to 1.

    Always 1 for fewer than three samples.

    Args:
        student: [B * V, D_s], see `similarities`.
        teacher: [B * V, D_t].
        views: V >= 2.
    """
    itself = torch.eye(len(student) // views, dtype=torch.bool, device=student.device)
    itself = itself.repeat_interleave(views - 1, 0)
    own, target = (
        similarities(each, views).masked_fill(itself, -2.0).argmax(1) for each in (student, teacher)
    )
    return (own == target).to(widen(student).dtype).mean()


def class_contrast(
    embeddings: Tensor,
    labels: Tensor,
    temperature: float = 0.07,
    *,
    counted: Tensor | None = None,
    epsilon: float = 1e-7,
) -> Tensor:
    """Supervised contrastive loss by anchor (Khosla et al. 2020): rows of one class attract each other.

    With G = u u^T / temperature less the maximum of each row, and P_r the other rows of the class of r:
    -(1 / |P_r|) sum_{k in P_r} [ G_rk - log(sum_{k' != r} exp(G_rk') + epsilon) ].

    Args:
        embeddings: u, unit vectors [N, E].
        labels: [N].
        temperature: > 0; the code's value is 0.07.
        counted: [N] bool; other rows are neither anchors nor compared with. None: all count.
        epsilon: >= 0.

    Returns:
        [N]; 0 for rows that do not count or are alone in their class.
    """
    check_temperature(temperature)
    embeddings = widen(embeddings)
    every = torch.ones_like(labels, dtype=torch.bool) if counted is None else counted
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = embeddings @ embeddings.T / temperature
    largest = logits.masked_fill(~(every | own), -torch.inf).amax(1, keepdim=True)
    logits = logits - largest.detach()
    others = every & ~own
    # Rows that do not count are 0 before exp, which could overflow there, and after it.
    total = (logits.masked_fill(~others, 0).exp() * others).sum(1, keepdim=True)
    positive = others & (labels == labels[:, None])
    summed = ((logits - (total + epsilon).log()) * positive).sum(1)
    return torch.where(every, -summed / positive.sum(1).clamp(min=1), torch.zeros_like(summed))
