from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import dense_divergence
from tests.losses import slow
from tests.losses.test_soft import gradient, logits

STUDENT, TEACHER = logits(2, 4, 3), logits(2, 4, 3, seed=1)
WEIGHT = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_loops(activation) -> None:
    total = 0.0
    for image in range(2):
        for place in range(4):
            own, other = STUDENT[image, place].tolist(), TEACHER[image, place].tolist()
            if activation == "softmax":
                value = slow.soft_loss([own], [other], 2.0)
            else:
                value = slow.bernoulli(own, other, 2.0)
            total += float(WEIGHT[image, place]) * value
    found = dense_divergence(STUDENT, TEACHER, 2.0, activation=activation, weight=WEIGHT)
    assert float(found) == pytest.approx(total / 3.5, rel=1e-9)


def test_no_location_is_zero_with_zero_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = dense_divergence(student, TEACHER, weight=torch.zeros(2, 4))
    assert float(loss.detach()) == 0
    assert torch.equal(gradient(loss, student), torch.zeros_like(student))


def test_unweighted_forms() -> None:
    each = dense_divergence(STUDENT, TEACHER, reduction="none")
    assert each.shape == (2, 4)
    torch.testing.assert_close(dense_divergence(STUDENT, TEACHER), each.mean())
    assert float(dense_divergence(STUDENT, STUDENT, activation="sigmoid")) == 0


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match=r"needed \(2, 4\)"):
        dense_divergence(STUDENT, TEACHER, weight=WEIGHT[:, :2])
    with pytest.raises(RequestError, match="tanh"):
        dense_divergence(STUDENT, TEACHER, activation="tanh")
    with pytest.raises(RequestError, match="class logits"):
        dense_divergence(STUDENT, TEACHER[:, :2])
