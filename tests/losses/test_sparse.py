from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import (
    TopK,
    decoupled_terms,
    softened_divergence,
    sparse_decoupled_terms,
    sparse_divergence,
    standardize,
    top_k,
)
from tests.losses import slow
from tests.losses.test_soft import gradient, logits

STUDENT, TEACHER = logits(5, 12), logits(5, 12, seed=1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(
    ("rest", "reference"),
    [("bucket", slow.bucket), ("uniform", slow.uniform), ("renormalize", slow.renormalized)],
)
def test_all_forms_equal_loops(rest, reference, temperature: float) -> None:
    kept = top_k(TEACHER, 4, [1.0, 4.0])
    found = sparse_divergence(STUDENT, kept, temperature, rest=rest)
    rows = zip(STUDENT.tolist(), TEACHER.tolist(), strict=True)
    expected = sum(reference(z, v, 4, temperature) for z, v in rows) / 5
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_bucket_is_never_above_the_full_divergence() -> None:
    full = softened_divergence(STUDENT, TEACHER, 4.0, "none")
    last = torch.zeros(5, dtype=torch.float64)
    for k in range(1, 13):
        now = sparse_divergence(STUDENT, top_k(TEACHER, k, [4.0]), 4.0, "none")
        assert (now <= full + 1e-12).all()
        assert (now >= last - 1e-12).all()
        last = now


def test_bucket_gradient() -> None:
    student, temperature, k = STUDENT.clone().requires_grad_(), 4.0, 4
    kept = top_k(TEACHER, k, [temperature])
    found = gradient(sparse_divergence(student, kept, temperature), student)
    p, q = (TEACHER / temperature).softmax(1), (STUDENT / temperature).softmax(1)
    p_rest = 1 - p.gather(1, kept.index).sum(1, keepdim=True)
    q_rest = 1 - q.gather(1, kept.index).sum(1, keepdim=True)
    expected = q * (1 - p_rest / q_rest)
    expected = expected.scatter(1, kept.index, (q - p).gather(1, kept.index)) * temperature / 5
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rest", ["bucket", "uniform", "renormalize"])
def test_all_classes_kept_equals_full(rest) -> None:
    student = STUDENT.clone().requires_grad_()
    kept = top_k(TEACHER, 12, [4.0])
    assert torch.isneginf(kept.log_rest).all()
    loss, full = sparse_divergence(student, kept, 4.0, rest=rest), softened_divergence(student, TEACHER, 4.0)
    torch.testing.assert_close(loss, full)
    torch.testing.assert_close(gradient(loss, student), gradient(full, student))


@pytest.mark.parametrize("rest", ["bucket", "uniform", "renormalize"])
def test_shift_of_rows_changes_nothing(rest) -> None:
    shift, targets = logits(5, 1, seed=2), torch.tensor([0, 5, 7, 2, 11])
    one, two = top_k(TEACHER, 4, [4.0], keep=targets), top_k(TEACHER - 2 * shift, 4, [4.0], keep=targets)
    torch.testing.assert_close(
        sparse_divergence(STUDENT + shift, two, 4.0, rest=rest),
        sparse_divergence(STUDENT, one, 4.0, rest=rest),
    )
    torch.testing.assert_close(
        torch.stack(sparse_decoupled_terms(STUDENT + shift, two, targets, 4.0)),
        torch.stack(sparse_decoupled_terms(STUDENT, one, targets, 4.0)),
    )


def test_equal_logits_give_zero_and_no_gradient() -> None:
    student, targets = TEACHER.clone().requires_grad_(), TEACHER.argmin(1)
    kept = top_k(TEACHER, 4, [4.0], keep=targets)
    for loss in (
        sparse_divergence(student, kept, 4.0),
        torch.stack(sparse_decoupled_terms(student, kept, targets, 4.0)).sum(),
    ):
        assert abs(float(loss.detach())) < 1e-14
        assert float(gradient(loss, student).abs().max()) < 1e-14


def test_dropped_classes_without_any_mass_are_finite() -> None:
    teacher = TEACHER.clone()
    teacher[:, 3:] = -torch.inf
    for rest in ("bucket", "uniform"):
        student = STUDENT.clone().requires_grad_()
        loss = sparse_divergence(student, top_k(teacher, 3, [2.0]), 2.0, rest=rest)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient(loss, student)).all()


def test_extrapolation_is_exact_for_equal_dropped_logits_and_a_bound_otherwise() -> None:
    flat = TEACHER.clone()
    order = flat.argsort(1, descending=True)
    flat = flat.scatter(1, order[:, 4:], -2.0)
    exact, guess = top_k(flat, 4, [1.0, 4.0]), top_k(flat, 4, [1.0])
    torch.testing.assert_close(
        sparse_divergence(STUDENT, guess, 4.0, extrapolate=True), sparse_divergence(STUDENT, exact, 4.0)
    )
    stored = top_k(TEACHER, 4, [1.0, 4.0])
    bound = top_k(TEACHER, 4, [1.0]).log_rest_at(4.0, extrapolate=True)
    assert (bound >= stored.log_rest_at(4.0)).all()


def test_labels_are_kept_where_asked_for() -> None:
    targets = TEACHER.argmin(1)
    kept = top_k(TEACHER, 4, [1.0], keep=targets)
    assert (kept.index == targets[:, None]).any(1).all()
    torch.testing.assert_close(kept.value, TEACHER.gather(1, kept.index))
    best = TEACHER.topk(3, dim=1).indices
    assert all(set(best[row].tolist()) < set(kept.index[row].tolist()) for row in range(5))


def test_decoupled_terms_over_the_kept_classes_and_the_rest() -> None:
    targets = torch.tensor([0, 5, 7, 2, 11])
    kept = top_k(TEACHER, 4, [2.0], keep=targets)
    target, non_target = sparse_decoupled_terms(STUDENT, kept, targets, 2.0)
    full_target, _ = decoupled_terms(STUDENT, TEACHER, targets, 2.0)
    torch.testing.assert_close(target, full_target)
    p_target = (TEACHER / 2).softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(
        target + (1 - p_target) * non_target, sparse_divergence(STUDENT, kept, 2.0, "none")
    )
    every = top_k(TEACHER, 12, [2.0])
    torch.testing.assert_close(
        torch.stack(sparse_decoupled_terms(STUDENT, every, targets, 2.0)),
        torch.stack(decoupled_terms(STUDENT, TEACHER, targets, 2.0)),
    )


@pytest.mark.parametrize("population", [False, True])
def test_standardized_targets_equal_those_of_standardized_logits(population: bool) -> None:
    kept = top_k(TEACHER, 4, [2.0], standardized=True, population=population)
    student = standardize(STUDENT, population=population)
    again = top_k(standardize(TEACHER, population=population), 4, [2.0])
    torch.testing.assert_close(
        sparse_divergence(student, kept.standardized(population=population), 2.0),
        sparse_divergence(student, again, 2.0),
    )
    with pytest.raises(RequestError, match="population"):
        kept.standardized(population=not population)


def test_rows_are_selected() -> None:
    student, teacher = logits(2, 3, 6), logits(2, 3, 6, seed=1)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    kept = top_k(teacher, 2, [1.0, 2.0], standardized=True)
    chosen = kept.select(mask)
    assert (kept.shape, chosen.shape) == ((2, 3, 6), (3, 6))
    torch.testing.assert_close(
        sparse_divergence(student[mask], chosen, 2.0, "none"),
        sparse_divergence(student, kept, 2.0, "none")[mask],
    )
    assert chosen.to("cpu").index.device.type == "cpu"


def test_half_precision_store_is_widened() -> None:
    kept = top_k(TEACHER, 4, [2.0])
    half = TopK(kept.index, kept.value.half(), kept.log_rest.half(), kept.temperatures, 12)
    loss = sparse_divergence(STUDENT.float(), half, 2.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(sparse_divergence(STUDENT, kept, 2.0)), rel=1e-2)
    rounded = TopK(half.index, half.value.float(), half.log_rest.float(), half.temperatures, 12)
    assert torch.equal(loss, sparse_divergence(STUDENT.float(), rounded, 2.0))


def _kept(**changes: Tensor) -> TopK:
    kept = top_k(TEACHER, 4, [1.0, 4.0])
    parts = {"index": kept.index, "value": kept.value, "log_rest": kept.log_rest, **changes}
    return TopK(**parts, temperatures=(1.0, 4.0), num_classes=12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: top_k(TEACHER, 13, [1.0]), "k = 13 of 12 classes"),
        (lambda: top_k(TEACHER, 0, [1.0]), "k = 0"),
        (lambda: _kept(value=TEACHER), "differ in shape"),
        (lambda: _kept(log_rest=TEACHER), "log_rest"),
        (lambda: sparse_divergence(STUDENT, _kept(), 2.0), "stored: 1, 4"),
        (lambda: sparse_divergence(STUDENT[:, :6], _kept(), 1.0), "(5, 6)"),
        (lambda: sparse_divergence(STUDENT, _kept(), 1.0, rest="drop"), "rest 'drop'"),
        (
            lambda: sparse_divergence(STUDENT, top_k(TEACHER, 4, [2.0]), 3.0, extrapolate=True),
            "temperature 1",
        ),
        (lambda: _kept().standardized(), "standardized=True"),
        (lambda: sparse_decoupled_terms(STUDENT, _kept(), TEACHER.argmin(1), 1.0), "keep=targets"),
    ],
)
def test_wrong_arguments_are_refused(call, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        call()
    assert words in str(caught.value)
