from __future__ import annotations

import warnings

import pytest
import torch

from limbeck.errors import RequestError, RunError
from limbeck.losses import (
    check_finite,
    check_labels,
    check_not_negative,
    warn_of_constant_rows,
    warn_of_probabilities,
)


def test_labels_outside_the_classes_are_refused() -> None:
    check_labels(torch.tensor([0, 2, -1]), 3)
    for wrong in (3, -2):
        with pytest.raises(RequestError, match=f"label {wrong} for 3 classes"):
            check_labels(torch.tensor([0, wrong]), 3)
    with pytest.raises(RequestError, match="label -1"):
        check_labels(torch.tensor([0, -1]), 3, unlabelled=False)


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_numbers_below_0_are_refused_by_name(value: float) -> None:
    check_not_negative(beta=0.0, margin=1e6)
    with pytest.raises(RequestError, match=f"margin {value}; needed a number >= 0"):
        check_not_negative(beta=1.0, margin=value)


def test_values_that_are_not_finite_are_refused() -> None:
    check_finite(torch.zeros(2, 3), "teacher logits")
    values = torch.zeros(4, 3)
    values[1, 2], values[3, 0] = torch.nan, torch.inf
    with pytest.raises(RunError, match="teacher logits are not finite in 2 of 4 rows, first in row 1"):
        check_finite(values, "teacher logits")


def test_probabilities_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="teacher seems to return probabilities"):
        warn_of_probabilities(torch.randn(4, 3).softmax(1), "teacher")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_probabilities(torch.randn(4, 3), "teacher")
        warn_of_probabilities(torch.ones(4, 3), "teacher")
        warn_of_probabilities(torch.ones(4, 1), "teacher")


def test_rows_of_equal_logits_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="no deviation"):
        warn_of_constant_rows(torch.tensor([[0.7, 0.7], [0.0, 1.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_constant_rows(torch.randn(4, 3))
