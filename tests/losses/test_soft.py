from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import (
    bernoulli_divergence,
    decoupled_terms,
    js_divergence,
    log_probabilities,
    mix_logits,
    softened_divergence,
    standardize,
)
from tests.losses import slow


def logits(*shape: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_softened_divergence_equals_loops(temperature: float) -> None:
    student, teacher = logits(5, 7), logits(5, 7, seed=1)
    expected = slow.soft_loss(student.tolist(), teacher.tolist(), temperature)
    assert float(softened_divergence(student, teacher, temperature)) == pytest.approx(expected, rel=1e-12)


def test_gradient_is_t_over_b_times_the_difference_of_probabilities() -> None:
    student, teacher, temperature = logits(5, 7).requires_grad_(), logits(5, 7, seed=1), 4.0
    found = gradient(softened_divergence(student, teacher, temperature), student)
    p, q = log_probabilities(teacher, temperature).exp(), log_probabilities(student, temperature).exp()
    torch.testing.assert_close(found, temperature / 5 * (q - p))


def test_direction_is_teacher_first() -> None:
    one, other = logits(4, 3), logits(4, 3, seed=1)
    forward, backward = softened_divergence(one, other, 1.0), softened_divergence(other, one, 1.0)
    assert abs(float(forward - backward)) > 1e-3
    assert float(forward) == pytest.approx(slow.soft_loss(one.tolist(), other.tolist(), 1.0))


def test_teacher_gets_no_gradient() -> None:
    student, teacher = logits(4, 3).requires_grad_(), logits(4, 3, seed=1).requires_grad_()
    for loss in (
        softened_divergence(student, teacher),
        js_divergence(student, teacher),
        bernoulli_divergence(student, teacher),
        sum(decoupled_terms(student, teacher, torch.zeros(4, dtype=torch.long))).sum(),
    ):
        assert torch.autograd.grad(loss, teacher, allow_unused=True)[0] is None


def test_reductions_differ_by_constant_factors() -> None:
    student, teacher = logits(6, 7), logits(6, 7, seed=1)
    each = softened_divergence(student, teacher, 4.0, "none")
    assert each.shape == (6,)
    torch.testing.assert_close(softened_divergence(student, teacher, 4.0, "sum"), each.sum())
    torch.testing.assert_close(softened_divergence(student, teacher, 4.0), each.sum() / 6)
    torch.testing.assert_close(softened_divergence(student, teacher, 4.0, "mean"), each.sum() / 42)
    torch.testing.assert_close(softened_divergence(student, teacher, 4.0, count=2.5), each.sum() / 2.5)


def test_shift_of_rows_changes_nothing() -> None:
    student, teacher = logits(5, 7), logits(5, 7, seed=1)
    shift, targets = logits(5, 1, seed=2), torch.tensor([0, 1, 2, 3, 6])
    for loss in (
        lambda z, v: softened_divergence(z, v, 4.0),
        lambda z, v: js_divergence(z, v, 4.0),
        lambda z, v: torch.stack(decoupled_terms(z, v, targets)),
        lambda z, v: softened_divergence(standardize(z), standardize(v), 2.0),
    ):
        torch.testing.assert_close(loss(student + shift, teacher - 2 * shift), loss(student, teacher))


def test_scale_of_rows_changes_nothing_once_standardized() -> None:
    student, teacher = logits(5, 7), logits(5, 7, seed=1)
    scale = logits(5, 1, seed=2).exp()
    torch.testing.assert_close(
        softened_divergence(standardize(scale * student), standardize(teacher / scale), 2.0),
        softened_divergence(standardize(student), standardize(teacher), 2.0),
        rtol=1e-6,
        atol=0,
    )


def test_equal_logits_give_zero_and_no_gradient() -> None:
    teacher = logits(5, 7)
    student = teacher.clone().requires_grad_()
    targets = torch.tensor([0, 1, 2, 3, 6])
    for loss in (
        softened_divergence(student, teacher),
        js_divergence(student, teacher),
        bernoulli_divergence(student, teacher),
        torch.stack(decoupled_terms(student, teacher, targets)).sum(),
        softened_divergence(standardize(student), standardize(teacher), 2.0),
    ):
        assert abs(float(loss.detach())) < 1e-14
        assert float(gradient(loss, student).abs().max()) < 1e-14


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_equals_loops_and_its_identity(temperature: float) -> None:
    student, teacher = logits(5, 7), logits(5, 7, seed=1)
    targets = torch.tensor([0, 1, 2, 3, 6])
    target, non_target = decoupled_terms(student, teacher, targets, temperature)
    for row in range(5):
        expected = slow.decoupled(
            student[row].tolist(), teacher[row].tolist(), int(targets[row]), temperature
        )
        assert (float(target[row]), float(non_target[row])) == pytest.approx(expected, rel=1e-9)
    p_target = log_probabilities(teacher, temperature).exp().gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(
        target + (1 - p_target) * non_target, softened_divergence(student, teacher, temperature, "none")
    )


def test_decoupled_of_two_classes_has_no_non_target_part() -> None:
    student = logits(4, 2).requires_grad_()
    _, non_target = decoupled_terms(student, logits(4, 2, seed=1), torch.tensor([0, 1, 1, 0]))
    assert torch.equal(non_target, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(gradient(non_target.sum(), student), torch.zeros(4, 2, dtype=torch.float64))


@pytest.mark.parametrize("population", [False, True])
def test_standardize_equals_loops(population: bool) -> None:
    values = logits(4, 6)
    expected = [slow.standardized(row, population) for row in values.tolist()]
    torch.testing.assert_close(standardize(values, population=population), torch.tensor(expected).double())


def test_standardize_of_a_constant_row_is_finite() -> None:
    student = torch.full((2, 5), 0.7, dtype=torch.float64, requires_grad=True)
    loss = softened_divergence(standardize(student), standardize(logits(2, 5)), 2.0)
    found = gradient(loss, student)
    assert torch.isfinite(found).all()
    assert 1e5 < float(found.abs().max()) < 1e8


def test_js_and_bernoulli_equal_loops() -> None:
    student, teacher = logits(5, 4), logits(5, 4, seed=1)
    rows = list(zip(student.tolist(), teacher.tolist(), strict=True))
    for temperature in (1.0, 3.0):
        expected = sum(slow.js(z, v, temperature) for z, v in rows) / 5
        assert float(js_divergence(student, teacher, temperature)) == pytest.approx(expected, rel=1e-10)
        expected = sum(slow.bernoulli(z, v, temperature) for z, v in rows) / 5
        assert float(bernoulli_divergence(student, teacher, temperature)) == pytest.approx(expected, rel=1e-9)


def test_js_is_symmetric_and_bounded() -> None:
    one, other = logits(5, 4, spread=50.0), logits(5, 4, seed=1, spread=50.0)
    torch.testing.assert_close(js_divergence(one, other), js_divergence(other, one))
    assert 0 < float(js_divergence(one, other)) <= 0.6931471805599454


def test_high_temperature_is_logit_matching() -> None:
    student, teacher = logits(4, 6), logits(4, 6, seed=1)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = float(centred.square().sum(1).mean() / 12)
    assert float(softened_divergence(student, teacher, 1e4)) == pytest.approx(limit, rel=1e-3)


def test_mixtures_equal_loops() -> None:
    teachers, weights, temperature = (
        [logits(3, 4), logits(3, 4, seed=1), logits(3, 4, seed=2)],
        [0.5, 0.3, 0.2],
        3.0,
    )
    for mixing in ("arithmetic", "geometric"):
        mixed = log_probabilities(mix_logits(teachers, temperature, mixing, weights), temperature).exp()
        for row in range(3):
            parts = [each[row].tolist() for each in teachers]
            if mixing == "arithmetic":
                soft = [slow.softmax(part, temperature) for part in parts]
                expected = [sum(w * p[k] for w, p in zip(weights, soft, strict=True)) for k in range(4)]
            else:
                summed = [sum(w * v[k] for w, v in zip(weights, parts, strict=True)) for k in range(4)]
                expected = slow.softmax(summed, temperature)
            assert mixed[row].tolist() == pytest.approx(expected, rel=1e-12)


def test_mixture_of_one_is_that_teacher_and_a_weight_of_zero_leaves_one_out() -> None:
    one, other = logits(3, 4), logits(3, 4, seed=1)
    for mixing in ("arithmetic", "geometric"):
        alone = log_probabilities(one, 2.0)
        torch.testing.assert_close(log_probabilities(mix_logits([one], 2.0, mixing), 2.0), alone)
        mixed = mix_logits([one, other], 2.0, mixing, [1.0, 0.0])
        torch.testing.assert_close(log_probabilities(mixed, 2.0), alone)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: softened_divergence(logits(4, 3), logits(4, 5)), "(4, 3)"),
        (lambda: softened_divergence(logits(4, 3), logits(4, 3), 0.0), "temperature 0.0"),
        (lambda: softened_divergence(logits(4, 3), logits(4, 3), float("nan")), "temperature nan"),
        (lambda: softened_divergence(logits(4, 3), logits(4, 3), 1.0, "max"), "reduction 'max'"),
        (lambda: standardize(logits(4, 1)), "at least 2 classes"),
        (lambda: decoupled_terms(logits(4, 1), logits(4, 1), torch.zeros(4).long()), "at least 2 classes"),
        (lambda: mix_logits([], 1.0), "without teachers"),
        (lambda: mix_logits([logits(4, 3)] * 2, 1.0, weights=[0.5, 0.6]), "sum to 1"),
        (lambda: mix_logits([logits(4, 3)] * 2, 1.0, weights=[1.0]), "sum to 1"),
        (lambda: mix_logits([logits(4, 3), logits(4, 4)], 1.0), "(4, 4)"),
        (lambda: mix_logits([logits(4, 3)], 1.0, "harmonic"), "harmonic"),
    ],
)
def test_wrong_arguments_are_refused(call, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        call()
    assert words in str(caught.value)
