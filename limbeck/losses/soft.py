"""Divergences between softened outputs (Hinton et al. 2015 and its settled variants).

Legend: z student logits, v teacher logits, T temperature, q = softmax(z / T), p = softmax(v / T).
All functions work in log space, widen half precision to float32 and detach the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape, check_temperature
from limbeck.losses.reductions import Count, Reduction, reduce_samples, widen

Mixing = Literal["arithmetic", "geometric"]
Activation = Literal["softmax", "sigmoid"]


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log of softmax(logits / T) over the last axis, in float32 or wider.

    Args:
        logits: [..., K].
        temperature: T > 0.
    """
    check_temperature(temperature)
    return F.log_softmax(widen(logits) / temperature, dim=-1)


def kl_divergence(target: Tensor, predicted: Tensor) -> Tensor:
    """KL(target || predicted) = sum_k p_k (log p_k - log q_k); no temperature, nothing detached.

    Args:
        target: log probabilities log p, [..., K], finite.
        predicted: log probabilities log q, [..., K], finite.

    Returns:
        [...], at least 0; 0 at equality.
    """
    return (target.exp() * (target - predicted)).sum(-1)


def softened_divergence(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 4.0,
    reduction: Reduction = "batchmean",
    *,
    count: Count = None,
) -> Tensor:
    """The soft term of knowledge distillation, T^2 KL(p || q).

    Hinton et al. 2015, section 2, which states the cross-entropy with soft targets: it differs by T^2
    times the entropy of p, which has no gradient. The KL is 0 for a perfect student. T^2 keeps the balance
    with a hard term at every T; the gradient is (T / B)(q - p).

    Args:
        student: logits z, [B, K] (or [B, ..., K]).
        teacher: logits v of the same shape; detached.
        temperature: T > 0; the paper uses 1 to 20.
        reduction: over samples, see `reduce_samples`; classes are summed.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, or [B, ...] for `none`. 0 at student = teacher.

    >>> float(softened_divergence(torch.zeros(2, 3), torch.zeros(2, 3)))
    0.0
    """
    check_same_shape(student, teacher)
    divergence = kl_divergence(
        log_probabilities(teacher.detach(), temperature), log_probabilities(student, temperature)
    )
    return reduce_samples(temperature**2 * divergence, reduction, width=student.shape[-1], count=count)


def js_divergence(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    reduction: Reduction = "batchmean",
    *,
    count: Count = None,
) -> Tensor:
    """Jensen-Shannon divergence, T^2 / 2 (KL(p || a) + KL(q || a)) with a = (p + q) / 2.

    Deep mutual learning (Zhang et al. 2018) names it beside the KL. The gradient runs through q and a.

    Args:
        student: logits z, [B, K] (or [B, ..., K]).
        teacher: logits v of the same shape; detached.
        temperature: T > 0.
        reduction: over samples, see `reduce_samples`; classes are summed.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, or [B, ...] for `none`; between 0 (student = teacher) and T^2 log 2.
    """
    check_same_shape(student, teacher)
    target = log_probabilities(teacher.detach(), temperature)
    predicted = log_probabilities(student, temperature)
    middle = torch.logaddexp(target, predicted) - torch.log(target.new_tensor(2.0))
    divergence = (kl_divergence(target, middle) + kl_divergence(predicted, middle)) / 2
    return reduce_samples(temperature**2 * divergence, reduction, width=student.shape[-1], count=count)


def bernoulli_divergence(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    reduction: Reduction = "batchmean",
    *,
    count: Count = None,
) -> Tensor:
    """T^2 times the KL of independent labels, summed over them: p log(p/q) + (1-p) log((1-p)/(1-q)).

    With p = sigmoid(v / T), q = sigmoid(z / T) (L2D, Yang et al. 2023: T 1, `batchmean`). The binary
    cross-entropy with soft targets differs by the entropy of p alone. The gradient is (T / B)(q - p).

    Args:
        student: logits z, [B, C] (or [B, ..., C]).
        teacher: logits v of the same shape; detached.
        temperature: T > 0.
        reduction: over samples, see `reduce_samples`.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, or [B, ...] for `none`. 0 at student = teacher.
    """
    check_same_shape(student, teacher)
    check_temperature(temperature)
    target, predicted = widen(teacher.detach()) / temperature, widen(student) / temperature
    both = kl_divergence(_log_two_way(target), _log_two_way(predicted)).sum(-1)
    return reduce_samples(temperature**2 * both, reduction, width=student.shape[-1], count=count)


def _log_two_way(logits: Tensor) -> Tensor:
    """Log of (sigmoid, 1 - sigmoid) on a new last axis."""
    return torch.stack((F.logsigmoid(logits), F.logsigmoid(-logits)), dim=-1)


def decoupled_terms(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float = 4.0
) -> tuple[Tensor, Tensor]:
    """The two parts of decoupled knowledge distillation (Zhao et al. 2022), T^2 inside, per sample.

    With t the target: the target part is the KL of (p_t, 1 - p_t) and (q_t, 1 - q_t), the non-target part
    the KL of the two distributions over the other classes alone. Identity:
    T^2 KL(p || q) = target + (1 - p_t) * non_target. The authors' code subtracts 1000 from the target
    logit and takes the log of sums of probabilities, which gives inf for confident students; here it is
    log space throughout.

    Args:
        student: logits z, [B, K], K >= 2.
        teacher: logits v, [B, K]; detached.
        targets: the labels t, [B] int64 in 0..K-1.
        temperature: T > 0; the paper uses 4 on CIFAR-100 and 1 on ImageNet.

    Returns:
        (target, non_target), [B] each, both 0 at student = teacher. With two classes the non-target part
        is 0 and has no gradient.
    """
    check_same_shape(student, teacher)
    if student.shape[-1] < 2:
        raise RequestError(f"logits {tuple(student.shape)}; decoupled distillation needs at least 2 classes")
    target, others = _split(log_probabilities(teacher.detach(), temperature), targets)
    predicted, predicted_others = _split(log_probabilities(student, temperature), targets)
    scale = temperature**2
    return (
        scale * kl_divergence(target, predicted),
        scale * kl_divergence(F.log_softmax(others, -1), F.log_softmax(predicted_others, -1)),
    )


def _split(logs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities [B, K] as (log of (p_t, 1 - p_t) [B, 2], log p of the other classes [B, K-1])."""
    places = torch.arange(logs.shape[-1] - 1, device=logs.device)
    others = logs.gather(-1, places + (places >= targets.unsqueeze(-1)).long())
    own = logs.gather(-1, targets.unsqueeze(-1))
    return torch.cat((own, others.logsumexp(-1, keepdim=True)), dim=-1), others


def standardize(logits: Tensor, *, population: bool = False, epsilon: float = 1e-7) -> Tensor:
    """Logits with mean 0 and deviation 1 in each row: (z - mean) / (epsilon + std).

    Sun et al. 2024 (logit standardisation); gradient runs through mean and deviation. The code uses the
    unbiased deviation, the formula in the paper probably the population's. A row of equal logits gives 0
    and a gradient of about 1 / epsilon. Invariant to shift and positive scale of each row.

    Args:
        logits: [..., K], K >= 2.
        population: divide by K in place of K - 1 inside the deviation.
        epsilon: 1e-7 in the code; it would vanish in half precision, so half is widened first.

    Returns:
        The same shape.
    """
    if logits.shape[-1] < 2:
        raise RequestError(f"logits {tuple(logits.shape)}; standardisation needs at least 2 classes")
    logits = widen(logits)
    if logits.numel() == 0:
        return logits  # no valid token: torch would warn of the deviation
    deviation = logits.std(-1, keepdim=True, correction=0 if population else 1)
    return (logits - logits.mean(-1, keepdim=True)) / (epsilon + deviation)


def mix_logits(
    logits: Sequence[Tensor],
    temperature: float,
    mixing: Mixing = "arithmetic",
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Several teachers as one: logits whose softmax at temperature T is their mixture.

    Hinton et al. 2015: `arithmetic` p = sum_m w_m softmax(v_m / T), `geometric`
    p = softmax(sum_m w_m v_m / T), the renormalised weighted geometric mean. The result is T log p, so
    every loss at the same T takes it as it takes the logits of one teacher.

    Args:
        logits: v_m, at least one, [..., K] each.
        temperature: T > 0.
        mixing: which mean.
        weights: w_m >= 0, summing to 1; equal if None.

    Returns:
        [..., K].
    """
    weights = check_mixture(len(logits), mixing, weights)
    if len({each.shape for each in logits}) > 1:
        shapes = ", ".join(str(tuple(each.shape)) for each in logits)
        raise RequestError(f"teacher logits {shapes}; all teachers of an ensemble need one shape")
    logs = torch.stack([log_probabilities(each, temperature) for each in logits])
    shares = logs.new_tensor(weights).reshape(-1, *[1] * (logs.ndim - 1))
    if mixing == "geometric":
        return temperature * F.log_softmax((shares * logs).sum(0), dim=-1)
    return temperature * torch.logsumexp(logs + shares.log(), dim=0)


def check_mixture(number: int, mixing: Mixing, weights: Sequence[float] | None) -> list[float]:
    """The weights of a mixture of `number` teachers; refuses none, and weights that do not sum to 1."""
    if number == 0:
        raise RequestError("an ensemble without teachers; needed at least one", fix="teachers=[teacher]")
    if mixing not in ("arithmetic", "geometric"):
        raise RequestError(f"mixing {mixing!r}; needed arithmetic or geometric")
    if weights is None:
        return [1 / number] * number
    if len(weights) != number or min(weights) < 0 or not abs(sum(weights) - 1) <= 1e-6:
        raise RequestError(
            f"teacher weights {list(weights)} for {number} teachers; "
            f"needed {number} numbers >= 0 that sum to 1"
        )
    return list(weights)
