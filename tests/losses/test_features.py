from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import feature_error
from tests.losses.test_soft import gradient, logits


def test_feature_error_of_maps() -> None:
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    square = (student - teacher) ** 2
    torch.testing.assert_close(feature_error(student, teacher), square.mean())
    torch.testing.assert_close(feature_error(student, teacher, "batchmean"), square.sum() / 2)
    torch.testing.assert_close(feature_error(student, teacher, "sum"), square.sum())
    torch.testing.assert_close(feature_error(student, teacher, "none"), square.mean((1, 2, 3)))
    torch.testing.assert_close(feature_error(student, teacher, count=4.0), square.sum() / 4 / 48)
    assert float(feature_error(student, student)) == 0


def test_masked_positions_are_never_read() -> None:
    student, teacher = logits(2, 3, 5), logits(2, 3, 5, seed=1)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = (student - teacher)[mask].square()
    student[~mask], teacher[~mask] = torch.nan, torch.inf
    student.requires_grad_()
    loss = feature_error(student, teacher, mask=mask)
    torch.testing.assert_close(loss, expected.mean())
    assert torch.isfinite(gradient(loss, student)).all()
    each = feature_error(student, teacher, "none", mask=mask)
    torch.testing.assert_close(each, torch.stack([expected[:2].mean(), expected[2:].mean()]))


def test_no_valid_position_is_zero() -> None:
    student, teacher = logits(2, 3, 5), logits(2, 3, 5, seed=1)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert float(feature_error(student, teacher, mask=nothing)) == 0
    assert torch.equal(feature_error(student, teacher, "none", mask=nothing), torch.zeros(2).double())


def test_micro_batches_of_positions() -> None:
    student, teacher = logits(2, 3, 5), logits(2, 3, 5, seed=1)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    pieces = [
        feature_error(student[i : i + 1], teacher[i : i + 1], mask=mask[i : i + 1], count=1.5) for i in (0, 1)
    ]
    torch.testing.assert_close(sum(pieces) / 2, feature_error(student, teacher, mask=mask))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(RequestError, match=r"features \(2, 3, 4\)"):
        feature_error(logits(2, 3, 4), logits(2, 3, 5))
    with pytest.raises(RequestError, match="mask"):
        feature_error(logits(2, 3, 4, 4), logits(2, 3, 4, 4), mask=torch.ones(2, 3))
