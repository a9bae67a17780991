"""Distributions whose parameters are predicted: samples with a gradient, and divergences of two that train.

UniKD (Huang et al. 2024). The paper's text was not available; the formulas are those of its abstract and of a
development repository, the one between Gaussians the textbook's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_same_shape
from limbeck.losses.reductions import Count, reduce_samples, widen
from limbeck.losses.soft import kl_divergence, log_probabilities


def gaussian_sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A reparameterised sample of a diagonal Gaussian, mean + exp(log_variance / 2) * noise.

    Args:
        mean: [B, K].
        log_variance: [B, K], natural logarithm; above about 700 (177 in float32) its exponential is infinite.
        noise: [B, K], standard normal; 0 gives the mean.

    Returns:
        [B, K], with gradient to mean and log variance.

    Raises:
        RequestError: shapes differ.
    """
    if not mean.shape == log_variance.shape == noise.shape:
        raise RequestError(
            f"noise {tuple(noise.shape)} for a mean {tuple(mean.shape)} and a log variance "
            f"{tuple(log_variance.shape)}; all must have one shape [B, K]"
        )
    return widen(mean) + (widen(log_variance) / 2).exp() * widen(noise)


def mutual_divergence(
    predicted: Tensor, target: Tensor, temperature: float = 4.0, *, count: Count = None
) -> Tensor:
    """T^2 KL(softmax(target / T) || softmax(predicted / T)), mean over samples; nothing is detached.

    As `softened_divergence`, but the gradient runs to both sides, so a target that trains moves too.

    Args:
        predicted: logits or what plays their part, [B, K].
        target: the same shape; detach it for a fixed target.
        temperature: T > 0.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, at least 0; 0 at predicted = target.
    """
    check_same_shape(predicted, target)
    divergence = kl_divergence(
        log_probabilities(target, temperature), log_probabilities(predicted, temperature)
    )
    return reduce_samples(temperature**2 * divergence, "batchmean", count=count)


def gaussian_divergence(
    mean: Tensor,
    log_variance: Tensor,
    target_mean: Tensor,
    target_log_variance: Tensor,
    *,
    count: Count = None,
) -> Tensor:
    """KL(N(target) || N(predicted)) of diagonal Gaussians, mean over samples; nothing is detached.

    0.5 * sum_k [ lv - lv' + (exp(lv') + (m' - m)^2) / exp(lv) - 1 ], m' and lv' of the target.

    Args:
        mean: of the predicted one, [B, K].
        log_variance: of it, the same shape.
        target_mean: of the target, the same shape.
        target_log_variance: likewise.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, at least 0; 0 at equality.

    >>> float(gaussian_divergence(*[torch.zeros(2, 3)] * 4))
    0.0
    """
    check_same_shape(mean, target_mean, "means")
    check_same_shape(log_variance, target_log_variance, "log variances")
    gap = widen(log_variance) - widen(target_log_variance)
    distance = (widen(target_mean) - widen(mean)).square() * torch.exp(-widen(log_variance))
    each = (gap + torch.exp(-gap) + distance - 1).sum(-1) / 2
    return reduce_samples(each, "batchmean", count=count)
