from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.errors import RequestError
from limbeck.methods import Plain
from limbeck.task import MultiLabel, Regression


def test_the_loss_is_the_tasks_over_the_labelled_samples() -> None:
    student = nn.Linear(3, 4)
    inputs, targets = torch.randn(5, 3), torch.tensor([0, -1, 2, 3, -1])
    losses = Plain(student)((inputs, targets))
    assert set(losses.terms) == {"hard"}
    labelled = targets >= 0
    torch.testing.assert_close(losses.total, F.cross_entropy(student(inputs)[labelled], targets[labelled]))


@pytest.mark.parametrize("task", [MultiLabel(), Regression()])
def test_any_task(task: MultiLabel | Regression) -> None:
    student = nn.Linear(3, 4)
    inputs, targets = torch.randn(5, 3), torch.ones(5, 4)
    losses = Plain(student, task=task)((inputs, targets))
    torch.testing.assert_close(losses.total, task.loss(student(inputs), {"targets": targets}))


def test_there_is_no_teacher() -> None:
    method = Plain(nn.Linear(3, 4))
    assert method.teacher is None
    assert Plain.card.teacher == "none"
    assert set(method.state_dict()) == {"student.weight", "student.bias"}


def test_labels_are_needed() -> None:
    with pytest.raises(RequestError, match="targets"):
        Plain(nn.Linear(3, 4))(torch.randn(5, 3))
