"""Correlation of rows and of columns (Huang et al. 2022, DIST; Niu et al. 2024, CMKD)."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.losses.checks import check_same_shape
from limbeck.losses.reductions import widen


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Pearson correlation over the last axis, <a', b'> / (|a'| |b'|) with a' = a - mean a.

    DIST (Huang et al. 2022, arXiv 2205.10536) compares rows of probabilities by it. Its code adds
    1e-8 to the product of the norms, which alone leaves 1.6e-4 at equality where probabilities are small
    (1,000 classes at temperature 4); here each norm is at least 1e-12. Nothing is detached.

    Args:
        one: [..., K]; half precision is widened. Each row should vary: the gradient of a constant one is of
            no use, see `varies`.
        other: the same shape.

    Returns:
        [...], between -1 and 1; 1 where one is a rising linear function of the other; 0 for a constant row.

    >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([9.0, 7.0, 5.0])).round(decimals=4)
    tensor(-1.)
    """
    check_same_shape(one, other, "rows")
    one, other = _centred(one), _centred(other)
    return (one * other).sum(-1) / (_norm(one) * _norm(other))


def _centred(rows: Tensor) -> Tensor:
    rows = widen(rows)
    return rows - rows.mean(-1, keepdim=True)


def _norm(rows: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return length.clamp(min=1e-12)


def varies(rows: Tensor, least: float = 1e-6) -> Tensor:
    """Whether a row has a correlation at all: its unbiased deviation is above `least`. No gradient.

    Args:
        rows: [..., K], K >= 2; half precision is widened.
        least: in units of the entries.

    Returns:
        [...] bool.
    """
    rows = widen(rows).detach()
    rows = rows - rows[..., :1]  # equal entries become 0, where a mean of large ones may be off by a rounding
    square = (rows - rows.mean(-1, keepdim=True)).square().sum(-1) / (rows.shape[-1] - 1)
    return square.sqrt() > least


def class_correlation_error(student: Tensor, teacher: Tensor) -> Tensor:
    """DIST's class-wise term: mean over classes of 1 - Pearson of a class's probabilities over the batch.

    Huang et al. 2022, the intra-class relation. A class that does not vary in the batch, in either network,
    has no correlation and counts as 1 with gradient 0: all of them in a batch of one.

    Args:
        student: probabilities, [B, K].
        teacher: the same shape; detached.

    Returns:
        A scalar in 0..2; 0 at student = teacher, where all classes vary.
    """
    check_same_shape(student, teacher, "probabilities")
    rows, classes = student.shape
    # Times K, so that what counts as varying does not depend on the number of classes.
    own, other = (widen(each).T * classes for each in (student, teacher.detach()))
    if rows < 2:
        return own.sum() * 0 + 1
    varying = varies(own) & varies(other)
    ramp = torch.arange(rows, dtype=own.dtype, device=own.device)  # keeps gradients finite where not used
    own, other = (torch.where(varying.unsqueeze(1), each, ramp) for each in (own, other))
    return torch.where(varying, 1 - pearson(own, other), 1.0).mean()
