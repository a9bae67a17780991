"""The interval of a mean over few runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Student's t for 95 of 100, both sides, by degrees of freedom from 1.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
#: Runs below which an interval says nothing.
FEWEST = 3


@dataclass(frozen=True)
class Interval:
    """A mean and what lies around it in 95 of 100 repetitions.

    Attributes:
        mean: in the unit of the values.
        half: the interval is from `mean - half` to `mean + half`.
    """

    mean: float
    half: float

    @property
    def holds_zero(self) -> bool:
        """Whether the difference may be none."""
        return abs(self.mean) <= self.half


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The mean of some runs with its 95 % interval by Student's t; None for fewer than three.

    Args:
        values: one a run, independent; differences that are paired by seed are such values.
    """
    if len(values) < FEWEST:
        return None
    t = _T[min(len(values) - 1, len(_T)) - 1]
    return Interval(statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(len(values)))
