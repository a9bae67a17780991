from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import hard_rank, pearson, sigmoid_rank, soft_rank, standardize
from limbeck.losses.ranks import _blocks, _pooled
from tests.losses import slow_ranks
from tests.losses.test_soft import gradient, logits

STRENGTHS = (0.001, 0.05, 0.3, 1.0, 30.0)
TIED = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)


def tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 10, 33])
def test_soft_ranks_equal_a_loop_that_pools_neighbours(classes: int, strength: float) -> None:
    values = logits(6, classes, spread=1.0)
    expected = tensor([slow_ranks.projected_ranks(row, strength) for row in values.tolist()])
    torch.testing.assert_close(soft_rank(values, strength), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
def test_the_blocks_are_those_of_the_loop(spread: float) -> None:
    for length in (1, 2, 5, 16, 17, 33, 100, 257):
        values = logits(10, length, spread=spread)
        falling = values.sort(-1, descending=True).values - torch.arange(length, 0, -1)
        for rows in (values, falling):
            found = [torch.bincount(row).tolist() for row in _blocks(_pooled(rows))]
            assert found == [slow_ranks.blocks(row) for row in rows.tolist()]


def test_soft_ranks_become_ordinary_ones_and_lose_their_gradient() -> None:
    values = logits(5, 12).requires_grad_()
    ranks = soft_rank(values, 1e-9)
    expected = tensor([slow_ranks.ordinary_ranks(row) for row in values.tolist()])
    torch.testing.assert_close(ranks, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(hard_rank(values), expected)
    assert torch.equal(gradient(ranks.square().sum(), values), torch.zeros_like(values))


def test_strong_soft_ranks_are_affine_in_the_values() -> None:
    values = logits(5, 12)
    ranks = soft_rank(values, 1e4)
    torch.testing.assert_close(ranks, 6.5 + (values - values.mean(1, keepdim=True)) / 1e4)
    torch.testing.assert_close(pearson(ranks, values), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_soft_ranks_sum_to_those_of_a_permutation_and_stay_between_1_and_k(strength: float) -> None:
    ranks = soft_rank(logits(8, 20), strength)
    torch.testing.assert_close(ranks.sum(1), torch.full((8,), 210.0, dtype=torch.float64))
    assert float(ranks.min()) >= 1 - 1e-9
    assert float(ranks.max()) <= 20 + 1e-9


def test_equal_entries_have_equal_ranks() -> None:
    assert hard_rank(TIED).tolist() == [[2, 4, 4, 1, 4], [3, 3, 3, 3, 3]]
    assert hard_rank(TIED).tolist() == [slow_ranks.ordinary_ranks(row) for row in TIED.tolist()]
    for ranks in (soft_rank(TIED, 0.1), sigmoid_rank(TIED, 0.1)):
        torch.testing.assert_close(ranks, hard_rank(TIED), atol=1e-4, rtol=0)
        torch.testing.assert_close(ranks[0, [1, 1]], ranks[0, [2, 4]])


def test_sigmoid_ranks_equal_loops() -> None:
    values = logits(4, 6, spread=1.0)
    expected = tensor([slow_ranks.sigmoid_ranks(row, 0.3) for row in values.tolist()])
    torch.testing.assert_close(sigmoid_rank(values, 0.3), expected)


@pytest.mark.parametrize("strength", [0.05, 0.3, 2.0])
def test_gradients_equal_finite_differences(strength: float) -> None:
    values = logits(4, 9, spread=1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_rank(x, strength), values)
    assert torch.autograd.gradcheck(lambda x: soft_rank(standardize(x), strength), values)
    assert torch.autograd.gradgradcheck(lambda x: soft_rank(standardize(x), strength), values)
    assert torch.autograd.gradcheck(lambda x: sigmoid_rank(x, strength), values)


def test_the_gradient_is_what_is_above_the_mean_of_a_block() -> None:
    # At strength 1 the first two entries are in one block; the third is alone, far below.
    values = tensor([[1.0, 1.5, -20.0]]).requires_grad_()
    upstream = tensor([[3.0, -1.0, 7.0]])
    assert gradient((soft_rank(values, 1.0) * upstream).sum(), values).tolist() == [[2.0, -2.0, 0.0]]


def test_single_precision_keeps_the_ranks_of_many_classes() -> None:
    for classes in (100, 1000):
        values = standardize(logits(8, classes)).float()
        narrow, wide = soft_rank(values, 3 / classes), soft_rank(values.double(), 3 / classes)
        assert narrow.dtype == torch.float32
        assert float((narrow - wide).abs().max()) < 1e-6 * classes


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(half: torch.dtype) -> None:
    values = logits(4, 10).to(half)
    for ranks in (soft_rank(values, 0.3), sigmoid_rank(values, 0.2), hard_rank(values)):
        assert ranks.dtype == torch.float32
    assert torch.equal(soft_rank(values, 0.3), soft_rank(values.float(), 0.3))


def test_no_rows_have_no_ranks() -> None:
    for ranks in (soft_rank(torch.zeros(0, 5), 0.3), sigmoid_rank(torch.zeros(0, 5), 0.3)):
        assert ranks.shape == hard_rank(torch.zeros(0, 5)).shape == (0, 5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_strengths_that_are_not_above_0_are_refused(value: float) -> None:
    with pytest.raises(RequestError, match=r"strength .* needed a number above 0"):
        soft_rank(logits(2, 3), value)
    with pytest.raises(RequestError, match=r"scale .* needed a number above 0"):
        sigmoid_rank(logits(2, 3), value)
