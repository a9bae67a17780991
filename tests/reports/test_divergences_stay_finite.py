"""Divergences by probabilities give NaN at small temperatures, and 1e-8 is 0 in half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck.losses import (
    bernoulli_divergence,
    decoupled_terms,
    js_divergence,
    kl_divergence,
    log_probabilities,
    mix_logits,
    softened_divergence,
    sparse_divergence,
    top_k,
)

TARGETS = torch.tensor([0, 2, 1])


def _reverse(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    own, other = log_probabilities(student, temperature), log_probabilities(teacher, temperature)
    return temperature**2 * kl_divergence(own, other).mean()


def _sparse(student: Tensor, teacher: Tensor, temperature: float, rest) -> Tensor:
    return sparse_divergence(student, top_k(teacher, 2, [temperature]), temperature, rest=rest)


DIVERGENCES = {
    "forward": softened_divergence,
    "reverse": _reverse,
    "js": js_divergence,
    "bernoulli": bernoulli_divergence,
    "decoupled": lambda z, v, t: sum(decoupled_terms(z, v, TARGETS, t)).mean(),
    "bucket": lambda z, v, t: _sparse(z, v, t, "bucket"),
    "uniform": lambda z, v, t: _sparse(z, v, t, "uniform"),
    "renormalize": lambda z, v, t: _sparse(z, v, t, "renormalize"),
    "arithmetic": lambda z, v, t: softened_divergence(z, mix_logits([v, -v], t, "arithmetic"), t),
    "geometric": lambda z, v, t: softened_divergence(z, mix_logits([v, -v], t, "geometric"), t),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_loss_and_gradient_are_finite(name: str, dtype: torch.dtype) -> None:
    rows = [[20.0, 0.0, -20.0, 3.0], [1e4, -1e4, 0.0, 1.0], [-1e4, 1e4, 5.0, 1e4]]
    for temperature in (0.05, 1.0, 100.0):
        for sign in (1, -1):
            student = torch.tensor(rows).to(dtype).requires_grad_()
            teacher = (sign * torch.tensor(rows).flip(1)).to(dtype)
            loss = DIVERGENCES[name](student, teacher, temperature)
            assert loss.dtype in (torch.float32, torch.float64)
            assert torch.isfinite(loss)
            (found,) = torch.autograd.grad(loss, student)
            assert torch.isfinite(found).all()


def test_the_small_input_has_its_exact_value() -> None:
    student = torch.tensor([[20.0, 0.0, -20.0]], dtype=torch.float64, requires_grad=True)
    loss = _reverse(student, student.detach().flip(1), 0.05)
    assert float(loss.detach()) == pytest.approx(0.05**2 * 800)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_half_precision_is_computed_in_float32() -> None:
    student, teacher = torch.randn(4, 6).half(), torch.randn(4, 6).half()
    torch.testing.assert_close(
        softened_divergence(student, teacher), softened_divergence(student.float(), teacher.float())
    )
