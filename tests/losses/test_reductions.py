from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import reduce_samples, reduce_tokens, reduce_weighted, widen

MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
VALUES = torch.tensor([1.0, 2.0, 6.0, 5.0], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("token_mean", 14 / 4), ("sequence_mean", (3 + 5) / 2), ("batchmean", 14 / 3), ("sum", 14.0)],
)
def test_tokens(reduction, expected: float) -> None:
    assert float(reduce_tokens(VALUES, MASK, reduction).detach()) == pytest.approx(expected)


def test_tokens_none_is_by_position() -> None:
    assert reduce_tokens(VALUES, MASK, "none") is VALUES


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "batchmean", "sum"])
def test_no_valid_position_is_zero_with_zero_gradient(reduction) -> None:
    values = torch.ones(3, 2, requires_grad=True)
    mask = torch.zeros(3, 2, dtype=torch.bool)
    loss = reduce_tokens(values[mask], mask, reduction)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(values.grad, torch.zeros(3, 2))


def test_tokens_over_micro_batches_with_the_count_of_all() -> None:
    whole = reduce_tokens(VALUES, MASK)
    pieces = [
        reduce_tokens(VALUES[:3], MASK[:1], count=4 / 3),
        reduce_tokens(VALUES[3:], MASK[1:2], count=4 / 3),
        reduce_tokens(VALUES[4:], MASK[2:], count=torch.tensor(4 / 3)),
    ]
    torch.testing.assert_close(sum(pieces) / 3, whole)


def test_samples() -> None:
    values = torch.tensor([1.0, 2.0, 6.0])
    assert reduce_samples(values, "none") is values
    assert float(reduce_samples(values)) == 3
    assert float(reduce_samples(values, "sum")) == 9
    assert float(reduce_samples(values, "mean", width=3)) == 1
    assert float(reduce_samples(values, count=torch.tensor(4.5))) == 2
    assert float(reduce_samples(values[:0])) == 0


def test_weighted_mean_is_zero_without_weight() -> None:
    values = torch.tensor([1.0, 3.0], requires_grad=True)
    assert float(reduce_weighted(values, torch.tensor([1.0, 0.5])).detach()) == pytest.approx(2.5 / 1.5)
    loss = reduce_weighted(values, torch.zeros(2))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(values.grad, torch.zeros(2))


def test_widen_lifts_half_alone() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert widen(torch.zeros(2, dtype=dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        value = torch.zeros(2, dtype=dtype)
        assert widen(value) is value


def test_unknown_reductions_are_refused() -> None:
    with pytest.raises(RequestError, match="batchmean"):
        reduce_samples(VALUES, "median")
    with pytest.raises(RequestError, match="token_mean"):
        reduce_tokens(VALUES, MASK, "mean")
