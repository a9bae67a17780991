"""CMKD on rows without a correlation, in low precision, on odd batches, in a combination, and trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses import hard_rank, pearson
from limbeck.methods import CMKD, KD
from limbeck.methods.combination import Combination
from limbeck.task import Tokens
from tests.losses.test_soft import gradient, logits
from tests.methods.stored import LABELS, TOKENS, network
from tests.methods.test_cmkd import cmkd, losses, only_terms

SPEARMANS = [{}, {"ranks": "sigmoid"}, {"teacher_ranks": "hard"}, {"spearman": "squared"}]


def rows_without_correlation() -> tuple[Tensor, Tensor]:
    """Of the student 1, of the teacher 2, of both 3; 4 varies by less than 1e-6."""
    student, teacher = logits(6, 10), logits(6, 10, seed=1)
    student[1], teacher[2], student[3], teacher[3] = 1000.1, -0.25, 0.0, 7.0
    student[4] = 1e-7 * student[4]
    return student, teacher


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("settings", SPEARMANS, ids=str)
def test_rows_of_equal_logits_count_as_1_without_gradient(
    settings: dict[str, object], dtype: torch.dtype
) -> None:
    student, teacher = (each.to(dtype) for each in rows_without_correlation())
    student.requires_grad_()
    found = losses(cmkd(hard_weight=0.0, weighting="fixed", **settings), student, teacher)
    rest = only_terms(student[[0, 5]], teacher[[0, 5]], **settings)
    for name, term in found.terms.items():
        assert float(term.detach()) == pytest.approx((4 + 2 * rest[name]) / 6, rel=1e-5), name
    assert float(found.notes["undefined"]) == pytest.approx(4 / 6)
    slope = gradient(found.total, student)
    assert torch.equal(slope[1:5], torch.zeros_like(slope[1:5]))
    assert slope[[0, 5]].isfinite().all()
    assert slope[[0, 5]].any(1).all()


def test_a_classifier_that_starts_at_0_learns() -> None:
    student, teacher = network(0), network(1)
    nn.init.zeros_(student[3].weight)
    nn.init.zeros_(student[3].bias)
    method, batch = CMKD(student, teacher), (torch.randn(8, 5), torch.arange(8) % 4)
    first = method(batch)
    first.total.backward()
    alone = gradient(F.cross_entropy(student(batch[0]), batch[1]), student[3].weight)
    torch.testing.assert_close(student[3].weight.grad, alone)  # of the labels alone, and finite
    assert float(first.notes["undefined"]) == 1
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
        last = method(batch)
        last.total.backward()
    assert float(last.notes["undefined"]) == 0
    assert float(last.terms["pearson"].detach()) < float(first.terms["pearson"].detach())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("settings", [*SPEARMANS, {"intra_weight": 2.0}], ids=str)
def test_half_precision_is_computed_in_float32(settings: dict[str, object], half: torch.dtype) -> None:
    student, teacher = logits(6, 10).to(half).requires_grad_(), logits(6, 10, seed=1).to(half)
    method = cmkd(**settings)
    found = losses(method, student, teacher, targets=LABELS)
    wide = losses(method, student.float(), teacher.float(), targets=LABELS)
    for name, term in found.terms.items():
        assert term.dtype == torch.float32
        assert torch.equal(term, wide.terms[name]), name
    assert gradient(found.total, student).isfinite().all()


def test_a_student_may_be_wider_than_its_teacher_in_precision() -> None:
    student, teacher = logits(6, 10).float(), logits(6, 10, seed=1).bfloat16()
    found, wide = (losses(cmkd(), student, each, targets=LABELS) for each in (teacher, teacher.float()))
    assert torch.equal(found.total, wide.total)


def test_a_batch_of_one_is_its_sample() -> None:
    student, teacher = logits(6, 10), logits(6, 10, seed=1)
    method = cmkd(hard_weight=0.0)
    whole = losses(method, student, teacher).total
    each = [losses(method, student[i : i + 1], teacher[i : i + 1]).total for i in range(6)]
    torch.testing.assert_close(torch.stack(each).mean(), whole)
    with_classes = losses(cmkd(hard_weight=0.0, intra_weight=2.0), student[:1], teacher[:1])
    assert float(with_classes.terms["intra"]) == 1


def test_a_class_that_is_absent_from_the_batch_changes_nothing() -> None:
    student, teacher = logits(6, 10), logits(6, 10, seed=1)
    some, others = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([7, 7, 7, 7, 7, 7])
    one, other = (losses(cmkd(), student, teacher, targets=each).terms for each in (some, others))
    assert torch.equal(one["pearson"], other["pearson"])
    assert torch.equal(one["spearman"], other["spearman"])
    assert torch.equal(other["hard"], F.cross_entropy(student, others))


def test_samples_without_a_label() -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    found, bare = (
        losses(cmkd(), student, teacher, targets=LABELS),
        losses(cmkd(hard_weight=0.0), student, teacher),
    )
    assert set(bare.terms) == {"pearson", "spearman"}
    for name, term in bare.terms.items():
        assert torch.equal(found.terms[name], term)
    none = losses(cmkd(), student, teacher, targets=torch.full((6,), -1))
    assert float(none.terms["hard"]) == 0
    # Their difficulty by the label is that by the teacher's entropy.
    by_label = losses(cmkd(difficulty_from="label"), student, teacher, targets=torch.full((6,), -1))
    assert torch.equal(by_label.total, none.total)


def test_valid_positions_of_tokens_are_the_rows() -> None:
    student, teacher = logits(3, 4, 5), logits(3, 4, 5, seed=1)
    valid = TOKENS != -100
    expected = losses(cmkd(), student[valid], teacher[valid], targets=TOKENS[valid])
    student[~valid], teacher[~valid] = float("nan"), float("inf")
    found = losses(cmkd(Tokens()), student, teacher, targets=TOKENS)
    for name, term in expected.terms.items():
        torch.testing.assert_close(found.terms[name], term)
    nothing = losses(cmkd(Tokens()), student, teacher, targets=torch.full_like(TOKENS, -100))
    assert float(nothing.total) == 0


def test_the_class_wise_term_is_told_by_the_card() -> None:
    assert not cmkd().card.couples_batch
    assert not CMKD.card.couples_batch
    method = cmkd(intra_weight=2.0, hard_weight=0.0)
    assert method.card.couples_batch
    student, teacher = rows_without_correlation()
    student.requires_grad_()
    found = losses(method, student, teacher)
    assert found.weights["intra"] == 2.0
    assert 0 < float(found.terms["intra"].detach()) < 2
    assert gradient(found.terms["intra"], student)[1:5].abs().max() == 0
    same = losses(method, logits(6, 10), 3 * logits(6, 10) + 1)
    assert float(same.terms["intra"]) == pytest.approx(0, abs=1e-6)


def test_temperature_squared_is_a_weight_of_the_terms_of_probabilities() -> None:
    student, teacher = logits(6, 10), logits(6, 10, seed=1)
    plain = losses(cmkd(temperature=4.0, intra_weight=2.0), student, teacher, targets=LABELS)
    square = losses(
        cmkd(temperature=4.0, intra_weight=2.0, tau_squared=True), student, teacher, targets=LABELS
    )
    assert square.terms == plain.terms
    assert square.weights == {"hard": 1.0, "pearson": 32.0, "spearman": 2.0, "intra": 32.0}
    logits_of = cmkd(pearson_on="logits", intra_weight=2.0, tau_squared=True)
    assert losses(logits_of, student, teacher, targets=LABELS).weights["pearson"] == 2.0


def test_terms_without_weight_are_left_out() -> None:
    student, teacher = logits(6, 10), logits(6, 10, seed=1)
    for name in ("pearson", "spearman"):
        found = losses(cmkd(hard_weight=0.0, **{f"{name}_weight": 0.0}), student, teacher)
        assert set(found.terms) == {"pearson", "spearman"} - {name}
    found = losses(
        cmkd(hard_weight=0.0, pearson_weight=0, spearman_weight=0, intra_weight=1), student, teacher
    )
    assert set(found.terms) == {"intra"}


def test_it_adds_to_another_method() -> None:
    student, teacher = network(0), network(1)
    both = Combination([KD(student, teacher), CMKD(student, teacher, hard_weight=0.0)], [1.0, 0.5])
    batch = (torch.randn(6, 5), LABELS)
    found = both(batch)
    assert set(found.terms) == {"kd.hard", "kd.soft", "cmkd.pearson", "cmkd.spearman"}
    assert found.weights["cmkd.pearson"] == 1.0
    assert {"cmkd.pearson_unweighted", "cmkd.difficulty"} <= set(found.notes)
    found.total.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


@pytest.mark.parametrize("classes", [10, 100])
def test_free_logits_learn_the_order_of_the_teachers_classes(classes: int) -> None:
    teacher = logits(8, classes)
    student = logits(8, classes, seed=1).requires_grad_()
    method = cmkd(hard_weight=0.0, pearson_weight=0.0, weighting="fixed")
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        losses(method, student, teacher).total.backward()
        optimizer.step()
    agreement = pearson(hard_rank(student), hard_rank(teacher))
    assert float(agreement.mean()) > 0.97


def test_a_very_sure_teacher_gives_the_same_lesson_about_order() -> None:
    """The same logits five times as large: equal terms, where the weights of samples do not read them."""
    torch.manual_seed(0)
    inputs, teacher = torch.randn(32, 5, dtype=torch.float64), logits(5, 4)
    found = []
    for scale in (1.0, 5.0):
        student = network(0).double()
        method = CMKD(student, nn.Identity(), hard_weight=0.0, weighting="fixed")
        optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            loss = losses(method, student(inputs), scale * inputs @ teacher).total
            loss.backward()
            optimizer.step()
        found.append(student[3].weight.detach())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
