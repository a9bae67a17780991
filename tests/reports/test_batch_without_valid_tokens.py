"""A batch whose positions are all masked: a hand-made mean is 0 / 0, and so is the cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck.methods import KD
from limbeck.record import Losses, Record
from limbeck.task import Tokens


def _run(student: Tensor, teacher: Tensor, targets: Tensor, **settings: object) -> Losses:
    count = settings.pop("count", None)
    method = KD(nn.Identity(), nn.Identity(), task=Tokens(), temperature=2.0, alpha=0.5, **settings)
    batch = {"inputs": student, "targets": targets, "mask": targets != -100}
    if count is not None:
        batch["count"] = count
    return method.losses(Record(student), Record(teacher), batch)


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "batchmean", "sum"])
def test_term_and_gradient_are_zero(reduction: str) -> None:
    student = torch.randn(2, 3, 5, requires_grad=True)
    nothing = torch.full((2, 3), -100)
    losses = _run(student, torch.full((2, 3, 5), torch.nan), nothing, reduction=reduction)
    losses.total.backward()
    assert {name: float(term.detach()) for name, term in losses.terms.items()} == {"hard": 0, "soft": 0}
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_micro_batches_weigh_by_their_tokens() -> None:
    student, teacher = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)
    targets = torch.tensor([[0, 1, 2, 3], [4, -100, -100, -100], [-100] * 4])
    whole = _run(student, teacher, targets)
    count = {"samples": 1.0, "targets": 5 / 3}
    parts = [_run(student[i : i + 1], teacher[i : i + 1], targets[i : i + 1], count=count) for i in range(3)]
    for name in whole.terms:
        torch.testing.assert_close(sum(part.terms[name] for part in parts) / 3, whole.terms[name])


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean"])
def test_more_padding_changes_nothing(reduction: str) -> None:
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    targets = torch.tensor([[0, 1, 2], [4, -100, -100]])
    before = _run(student, teacher, targets, reduction=reduction)
    wider = [torch.cat((each, torch.full((2, 4, 5), torch.nan)), 1) for each in (student, teacher)]
    longer = torch.cat((targets, torch.full((2, 4), -100)), 1)
    after = _run(*wider, longer, reduction=reduction)
    for name in before.terms:
        torch.testing.assert_close(after.terms[name], before.terms[name], rtol=0, atol=0)
