from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import bounded_error, smooth_absolute_error, squared_error
from tests.losses.test_soft import gradient, logits

STUDENT, TEACHER, GOAL = logits(4, 3), logits(4, 3, seed=1), logits(4, 3, seed=2)


def test_squared_error_is_a_mean_over_samples_and_values() -> None:
    expected = (
        sum((r - u) ** 2 for r, u in zip(STUDENT.flatten().tolist(), TEACHER.flatten().tolist(), strict=True))
        / 12
    )
    assert float(squared_error(STUDENT, TEACHER)) == pytest.approx(expected)
    assert squared_error(STUDENT, TEACHER, "none").shape == (4,)
    assert float(squared_error(STUDENT, STUDENT)) == 0


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_smooth_absolute_error_equals_loops(beta: float) -> None:
    total = 0.0
    for r, u in zip(STUDENT.flatten().tolist(), TEACHER.flatten().tolist(), strict=True):
        distance = abs(r - u)
        total += distance**2 / (2 * beta) if distance < beta else distance - beta / 2
    assert float(smooth_absolute_error(STUDENT, TEACHER, beta=beta)) == pytest.approx(total / 12)


@pytest.mark.parametrize("margin", [0.0, 5.0])
def test_bounded_error_equals_loops(margin: float) -> None:
    total = 0.0
    for own, other, goal in zip(STUDENT.tolist(), TEACHER.tolist(), GOAL.tolist(), strict=True):
        error = sum((r - g) ** 2 for r, g in zip(own, goal, strict=True))
        bound = sum((u - g) ** 2 for u, g in zip(other, goal, strict=True))
        total += error if error + margin > bound else 0.0
    assert float(bounded_error(STUDENT, TEACHER, GOAL, margin)) == pytest.approx(total / 4)


def test_bounded_error_leaves_a_student_alone_that_is_better_than_its_teacher() -> None:
    student = (GOAL + 0.1).requires_grad_()
    loss = bounded_error(student, GOAL + 1.0, GOAL)
    assert float(loss.detach()) == 0
    assert torch.equal(gradient(loss, student), torch.zeros_like(student))


def test_teacher_gets_no_gradient() -> None:
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    for loss in (
        squared_error(student, teacher),
        smooth_absolute_error(student, teacher),
        bounded_error(student, teacher, GOAL, 100.0),
    ):
        own, other = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
        assert own is not None
        assert other is None


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="margin -1"):
        bounded_error(STUDENT, TEACHER, GOAL, -1.0)
    with pytest.raises(RequestError, match=r"\(4, 2\)"):
        squared_error(STUDENT, TEACHER[:, :2])
