"""Random hyperplanes that tell directions of features apart (Wang, Ge, Wu 2022, feature mimicking).

Legend: f features [B, D], W hyperplanes [N, D], b their bias [N], u = f W^T + b; a bit is 1 where u > 0.
The paper's text beyond its opening was not available: the formulas are those of the authors' code.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape
from limbeck.losses.reductions import widen

_VALUES = 1 << 24  # of float32, 64 MB: the most that `hash_bias` holds of u at once


def hash_values(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """U = f W^T + b, in float32 or wider, autocast or not.

    Args:
        features: f, [B, D].
        weight: W, [N, D].
        bias: b, [N].

    Returns:
        [B, N].

    Raises:
        RequestError: another width than that of the hyperplanes.
    """
    if features.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise RequestError(
            f"features {tuple(features.shape)} for hyperplanes of {weight.shape[1]} dimensions; "
            f"needed [B, {weight.shape[1]}]"
        )
    with torch.autocast(features.device.type, enabled=False):
        features = widen(features)
        return F.linear(features, weight.to(features.dtype), bias.to(features.dtype))


def hash_error(student: Tensor, teacher: Tensor) -> Tensor:
    """How far a student is from its teacher's bits: mean over N of softplus(u_s) - c u_s, c = 1[u_t > 0].

    The binary cross-entropy with logits. With b = 0 only its size, and no sign, changes with |f_s|. The
    gradient is (sigmoid(u_s) - c) / N. It is not 0 at student = teacher: it falls with the distance from
    the hyperplanes, on the right side.

    Args:
        student: u_s, [B, N].
        teacher: u_t, [B, N]; detached. u_t = 0 is the bit 0.

    Returns:
        [B], above 0.

    >>> hash_error(torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])).tolist()
    [0.6931471824645996]
    """
    check_same_shape(student, teacher, "hash values")
    bits = (teacher.detach() > 0).to(student.dtype)
    return F.binary_cross_entropy_with_logits(student, bits, reduction="none").mean(1)


def hash_bias(features: Tensor, weight: Tensor, rule: Literal["median", "mean"]) -> Tensor:
    """The bias that balances every bit over a data set: minus the median, or the mean, of f W^T.

    Args:
        features: of all samples, [n, D], n >= 1.
        weight: W, [N, D].
        rule: `median` is the lower one of an even number, as torch's; half of the bits are then 1. The sample
            that gives it lies on the hyperplane, so that rounding decides its bit.

    Returns:
        b, [N].

    Raises:
        RequestError: there is no sample.
    """
    if len(features) == 0:
        raise RequestError(
            f"the {rule} over no sample; the bias of the hyperplanes needs the training set",
            fix='look at the data, or bias = "zero"',
        )
    with torch.autocast(features.device.type, enabled=False):
        if rule == "mean":
            return -(weight @ features.mean(0))
        pieces = torch.split(weight, max(_VALUES // len(features), 1))
        return -torch.cat([(piece @ features.T).median(1).values for piece in pieces])
