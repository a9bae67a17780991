from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import class_correlation_error, pearson, varies
from tests.losses import slow_ranks
from tests.losses.test_soft import gradient, logits


def test_pearson_equals_loops() -> None:
    one, other = logits(5, 7), logits(5, 7, seed=1)
    expected = [slow_ranks.correlation(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    assert pearson(one, other).tolist() == pytest.approx(expected)
    assert pearson(one, 3 * one - 2).tolist() == pytest.approx([1.0] * 5)
    assert pearson(one, 2 - 0.1 * one).tolist() == pytest.approx([-1.0] * 5)


def test_pearson_of_small_numbers_is_1_at_equality() -> None:
    probabilities = (logits(4, 1000, spread=0.5) / 4).softmax(1)
    for values in (probabilities, probabilities.float()):
        assert float((1 - pearson(values, values)).abs().max()) < 1e-6


def test_gradients_equal_finite_differences() -> None:
    one, other = logits(3, 6).requires_grad_(), logits(3, 6, seed=1)
    assert torch.autograd.gradcheck(lambda x: pearson(x, other), one)
    assert torch.autograd.gradcheck(lambda x: class_correlation_error(x.softmax(1), other.softmax(1)), one)


def test_what_varies() -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0], [0.1, 0.1, 0.1], [1.0, 1.0, 1.0 + 1e-5]])
    assert varies(rows).tolist() == [True, False, True]
    # The mean of large equal numbers may be off by a rounding.
    for value in (1000.1, 123456.7, 1e30):
        assert not varies(torch.full((2, 1000), value)).any()
    assert varies(torch.zeros(0, 3)).shape == (0,)


def test_the_term_of_classes_equals_loops() -> None:
    one, other = logits(6, 4).softmax(1), logits(6, 4, seed=1).softmax(1)
    expected = sum(
        1 - slow_ranks.correlation(a, b) for a, b in zip(one.T.tolist(), other.T.tolist(), strict=True)
    )
    assert float(class_correlation_error(one, other)) == pytest.approx(expected / 4)
    assert float(class_correlation_error(one, one)) == pytest.approx(0, abs=1e-12)


def test_classes_that_do_not_vary_count_as_1_without_gradient() -> None:
    one, other = logits(6, 4).softmax(1), logits(6, 4, seed=1).softmax(1)
    one[:, 1], other[:, 2] = 0.25, 0.0
    one.requires_grad_()
    loss = class_correlation_error(one, other)
    kept = class_correlation_error(one[:, [0, 3]], other[:, [0, 3]])
    assert float(loss.detach()) == pytest.approx((2 * float(kept.detach()) + 2) / 4)
    found = gradient(loss, one)
    assert torch.equal(found[:, 1:3], torch.zeros(6, 2, dtype=torch.float64))
    assert found.isfinite().all()


def test_one_row_has_no_correlation_of_classes() -> None:
    one = logits(1, 4).softmax(1).requires_grad_()
    loss = class_correlation_error(one, one.detach())
    assert float(loss.detach()) == 1
    assert torch.equal(gradient(loss, one), torch.zeros(1, 4, dtype=torch.float64))


def test_other_shapes_are_refused() -> None:
    for function in (pearson, class_correlation_error):
        with pytest.raises(RequestError, match=r"\(2, 3\).*\(2, 4\)"):
            function(logits(2, 3), logits(2, 4))
