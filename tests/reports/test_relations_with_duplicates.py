"""Equal rows in a batch, and batches of one, leave the gradients of relations finite."""

from __future__ import annotations

import pytest
import torch

from limbeck.losses import class_correlation_error


@pytest.mark.parametrize("rows", [[0, 0, 1, 2], [0, 0, 0, 0], [0], [0, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_rows_and_one_row(rows: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(3, 5)[rows].to(dtype) for _ in range(2))
    student.requires_grad_()
    loss = class_correlation_error(student.softmax(1), teacher.softmax(1))
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    if len(set(rows)) == 1:  # no class varies, so there is no relation to learn
        assert loss.item() == 1
        assert not student.grad.any()
