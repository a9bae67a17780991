"""CMKD against loops, its invariances, rows without a correlation, low precision, and what it promises."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses import hard_rank, pearson
from limbeck.methods import CMKD
from limbeck.record import Losses, Record
from limbeck.task import Task
from tests.losses.test_soft import gradient, logits
from tests.methods import slow_cmkd
from tests.methods.stored import LABELS, kd
from tests.methods.stored import losses as losses_of_kd

VARIANTS: list[dict[str, object]] = [
    {},
    {"weighting": "inverse"},
    {"weighting": "fixed"},
    {"difficulty_from": "student"},
    {"difficulty_from": "label", "difficulty_temperature": 3.0},
    {"pearson_on": "logits"},
    {"temperature": 0.7, "population": True},
    {"spearman": "squared"},
    {"ranks": "sigmoid"},
    {"ranks": "sigmoid", "sigmoid_scale": 0.4, "teacher_ranks": "hard"},
    {"rank_strength": 0.1, "teacher_ranks": "hard", "spearman": "squared"},
]


def cmkd(task: Task | None = None, **settings: object) -> CMKD:
    """A method for stored outputs: its networks are not run."""
    return CMKD(nn.Identity(), nn.Identity(), task=task, **settings)


def losses(method: CMKD, student: Tensor, teacher: Tensor, **batch: object) -> Losses:
    return method.losses(Record(student), Record(teacher), {"inputs": student, **batch})


def only_terms(student: Tensor, teacher: Tensor, **settings: object) -> dict[str, float]:
    """The terms without labels and without weights of the samples."""
    found = losses(cmkd(hard_weight=0.0, weighting="fixed", **settings), student, teacher)
    return {name: float(term.detach()) for name, term in found.terms.items()}


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_terms_equal_loops(settings: dict[str, object]) -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    student[2] = 0.5  # a row without a correlation
    found = losses(cmkd(hard_weight=0.5, **settings), student, teacher, targets=LABELS)
    expected = slow_cmkd.terms(student.tolist(), teacher.tolist(), LABELS.tolist(), settings)
    hard = F.cross_entropy(student[LABELS >= 0], LABELS[LABELS >= 0])
    assert float(found.terms["pearson"]) == pytest.approx(expected[0], rel=1e-9)
    assert float(found.terms["spearman"]) == pytest.approx(expected[1], rel=1e-9)
    assert float(found.total) == pytest.approx(0.5 * float(hard) + 2 * sum(expected), rel=1e-9)
    assert found.weights == {"hard": 0.5, "pearson": 2.0, "spearman": 2.0}


@pytest.mark.parametrize(
    # Weights from the student move with it and have no gradient: see below.
    "settings",
    [each for each in VARIANTS if each.get("difficulty_from") != "student"],
    ids=str,
)
def test_gradients_equal_finite_differences(settings: dict[str, object]) -> None:
    student, teacher, labels = logits(4, 6).requires_grad_(), logits(4, 6, seed=1), torch.tensor([0, 5, 2, 3])
    method = cmkd(**settings)
    assert torch.autograd.gradcheck(lambda x: losses(method, x, teacher, targets=labels).total, student)


def test_defaults() -> None:
    method = cmkd()
    assert (method.hard_weight, method.pearson_weight, method.spearman_weight) == (1.0, 2.0, 2.0)
    assert (method.temperature, method.difficulty_temperature, method.intra_weight) == (2.0, 1.0, 0.0)
    student, teacher = logits(3, 10), logits(3, 10, seed=1)
    written = {"rank_strength": 0.3}, {"ranks": "sigmoid", "sigmoid_scale": 0.2}
    for settings, plain in zip(written, ({}, {"ranks": "sigmoid"}), strict=True):
        assert only_terms(student, teacher, **settings) == only_terms(student, teacher, **plain)


@pytest.mark.parametrize("classes", [3, 10, 100, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_rising_linear_function_of_the_teacher_is_the_minimum(classes: int, dtype: torch.dtype) -> None:
    teacher = logits(5, classes).to(dtype)
    student = (0.3 * teacher - 4).requires_grad_()
    found = only_terms(student, teacher, temperature=4.0)
    assert max(abs(value) for value in found.values()) < 1e-6
    assert gradient(losses(cmkd(hard_weight=0.0), student, teacher).total, student).abs().max() < 1e-3


@pytest.mark.parametrize("ranks", ["projection", "sigmoid"])
def test_the_opposite_order_is_2(ranks: str) -> None:
    teacher = logits(5, 10)
    found = only_terms(-teacher, teacher, ranks=ranks)
    assert found["spearman"] == pytest.approx(2.0)
    assert 1 < found["pearson"] <= 2
    assert only_terms(-teacher, teacher, pearson_on="logits")["pearson"] == pytest.approx(2.0)


def test_scale_and_shift_of_either_network_change_nothing_where_kd_changes() -> None:
    student, teacher = logits(6, 10), logits(6, 10, seed=1)
    plain = only_terms(student, teacher)
    for own, other in (
        (7 * student - 3, teacher),
        (student, 5 * teacher),
        (0.01 * student, 0.2 * teacher + 9),
    ):
        assert only_terms(own, other) == pytest.approx(plain, rel=1e-5)
    soft = [float(losses_of_kd(kd(alpha=1.0), student, each).total) for each in (teacher, 5 * teacher)]
    assert soft[1] > 2 * soft[0]


def test_very_strong_ranks_are_the_correlation_of_the_logits() -> None:
    student, teacher = logits(6, 10), logits(6, 10, seed=1)
    found = only_terms(student, teacher, rank_strength=1e3, pearson_on="logits")
    assert found["spearman"] == pytest.approx(found["pearson"], rel=1e-9)
    weak = only_terms(student, teacher, rank_strength=1e-6)["spearman"]
    assert weak == pytest.approx(float((1 - pearson(hard_rank(student), hard_rank(teacher))).mean()))


@pytest.mark.parametrize("source", ["teacher", "student"])
def test_weights_of_samples_sum_to_1_and_have_no_gradient(source: str) -> None:
    student, teacher = logits(6, 10).requires_grad_(), logits(6, 10, seed=1)
    teacher[0] = 0.25  # rounding gives such a row a little more than log K
    method, fixed = cmkd(hard_weight=0.0, difficulty_from=source), cmkd(hard_weight=0.0, weighting="fixed")
    constant = torch.zeros((), dtype=torch.float64)
    for row in range(6):
        notes = losses(method, student[row : row + 1], teacher[row : row + 1]).notes
        shares = {name: float(notes[f"{name}_share"]) for name in ("pearson", "spearman")}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert 0 <= shares["pearson"] <= 1
        terms = losses(fixed, student[row : row + 1], teacher[row : row + 1]).terms
        constant = constant + sum(2 * share * terms[name] for name, share in shares.items()) / 6
    found = losses(method, student, teacher).total
    torch.testing.assert_close(found, constant)
    torch.testing.assert_close(gradient(found, student), gradient(constant, student))


def test_notes_say_what_the_weights_of_samples_do() -> None:
    student, teacher = logits(6, 10).requires_grad_(), logits(6, 10, seed=1)
    found, fixed = losses(cmkd(hard_weight=0.0), student, teacher), only_terms(student, teacher)
    hard = torch.tensor([slow_cmkd.entropy(row, 1.0) for row in teacher.tolist()], dtype=torch.float64)
    expected = {
        "pearson_unweighted": fixed["pearson"],
        "spearman_unweighted": fixed["spearman"],
        "pearson_share": 1 - float(hard.mean()),
        "spearman_share": float(hard.mean()),
        "difficulty": float(hard.mean()),
        "difficulty_low": float(hard.quantile(0.1)),
        "difficulty_high": float(hard.quantile(0.9)),
        "undefined": 0.0,
    }
    assert {name: float(value) for name, value in found.notes.items()} == pytest.approx(expected)
    assert not any(value.requires_grad for value in found.notes.values())
