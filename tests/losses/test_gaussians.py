from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from limbeck.errors import RequestError
from limbeck.losses import gaussian_divergence, gaussian_sample, mutual_divergence, softened_divergence


def values(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(number)]


def test_a_sample_is_mean_plus_deviation_times_noise() -> None:
    mean, logs, noise = values(3)
    torch.testing.assert_close(gaussian_sample(mean, logs, noise), mean + logs.exp().sqrt() * noise)
    assert torch.equal(gaussian_sample(mean, logs, torch.zeros_like(noise)), mean)


def test_the_divergence_of_gaussians_is_that_of_torch() -> None:
    mean, logs, target, target_logs = values(4)
    one, two = Normal(mean, (logs / 2).exp()), Normal(target, (target_logs / 2).exp())
    expected = kl_divergence(two, one).sum(1)
    found = gaussian_divergence(mean, logs, target, target_logs)
    torch.testing.assert_close(found, expected.mean())
    torch.testing.assert_close(gaussian_divergence(mean, logs, target, target_logs, count=6), found / 2)
    assert gaussian_divergence(mean, logs, mean, logs).item() == 0


def test_gradients_of_gaussians_equal_differences() -> None:
    leaves = [value.requires_grad_() for value in values(4)]
    assert torch.autograd.gradcheck(gaussian_divergence, leaves)
    assert torch.autograd.gradcheck(gaussian_sample, leaves[:3])


def test_the_mutual_divergence_differs_from_the_soft_term_in_its_gradient_alone() -> None:
    predicted, target = (value.requires_grad_() for value in values(2))
    found = mutual_divergence(predicted, target, 2.0)
    torch.testing.assert_close(found, softened_divergence(predicted, target, 2.0))
    both = torch.autograd.grad(found, (predicted, target))
    assert all(gradient.abs().max() > 0 for gradient in both)
    assert mutual_divergence(target, target).item() == 0
    assert torch.autograd.gradcheck(mutual_divergence, (predicted, target))


def test_half_precision_is_widened() -> None:
    rows = [value.bfloat16() for value in values(4)]
    for found in (mutual_divergence(*rows[:2]), gaussian_divergence(*rows), gaussian_sample(*rows[:3])):
        assert found.dtype == torch.float32


def test_other_shapes_are_refused() -> None:
    with pytest.raises(RequestError, match=r"noise \(2, 3\) for a mean \(2, 4\)"):
        gaussian_sample(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(RequestError, match="must have one shape"):
        mutual_divergence(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(RequestError, match="must have one shape"):
        gaussian_divergence(*[torch.zeros(2, 4)] * 2, *[torch.zeros(2, 3)] * 2)
