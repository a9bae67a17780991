"""The interval of a mean over few runs."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck._show.intervals import Interval, mean_interval


def test_too_few_runs_have_no_interval() -> None:
    assert mean_interval([1.0, 2.0]) is None


def test_interval_of_three_runs_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.303 / 3**0.5)
    assert not found.holds_zero or found.half > 2
    assert Interval(0.1, 0.2).holds_zero


@pytest.mark.parametrize("runs", [3, 5, 40])
def test_it_holds_the_truth_in_95_of_100(runs: int) -> None:
    draw = np.random.default_rng(runs)
    held = 0
    for values in draw.normal(1.0, 2.0, (2000, runs)):
        found = mean_interval(values.tolist())
        assert found is not None
        held += abs(found.mean - 1.0) <= found.half
    assert held / 2000 == pytest.approx(0.95, abs=0.015)
