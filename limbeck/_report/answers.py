"""What networks answered to the same samples, compared: classes, confusions, agreement, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
Real = NDArray[np.float64]

#: Bins of confidence, as in Guo et al. 2017, "On calibration of modern neural networks", section 2.
BINS = 15


@dataclass(frozen=True)
class Answers:
    """What one network said of N samples.

    Args:
        predicted: classes, [N].
        confidence: the probability that it gave to them, 0..1, [N].
    """

    predicted: Whole
    confidence: Real


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        low: its bounds are above `low` and up to `high`.
        high: see `low`.
        samples: how many.
        confidence: their mean.
        accuracy: the share of right ones among them.
    """

    low: float
    high: float
    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Agreement:
    """How many samples teacher and student answered rightly, and whether they said the same.

    Attributes:
        both: right; `teacher` and `student`: only that one; `neither`: of the two.
        same: equal answers, right or wrong.
    """

    both: int
    teacher: int
    student: int
    neither: int
    same: int

    @property
    def samples(self) -> int:
        """All of them."""
        return self.both + self.teacher + self.student + self.neither


@dataclass(frozen=True)
class Moved:
    """A confusion that one network makes more often than another: samples of `true` called `said`."""

    true: int
    said: int
    before: int
    after: int


def right_by_class(target: Whole, predicted: Whole, classes: int) -> tuple[Whole, Whole]:
    """Samples and right answers of every class, [K] each.

    Args:
        target: the classes, [N], 0..K-1.
        predicted: the answers, [N].
        classes: K.
    """
    samples = np.bincount(target, minlength=classes)
    return samples, np.bincount(target[target == predicted], minlength=classes)


def confusion(target: Whole, predicted: Whole, classes: int) -> Whole:
    """Counts [K, K]: row = class, column = answer."""
    counts = np.bincount(target * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def most_moved(before: Whole, after: Whole, most: int) -> list[Moved]:
    """The confusions whose number changed most, wrong answers only, largest change first.

    Args:
        before: counts [K, K] of one network, as `confusion` gives them.
        after: of the other.
        most: how many at most; equal changes in the order of the classes.
    """
    change = np.abs(after - before)
    np.fill_diagonal(change, 0)
    order = np.argsort(-change, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(change)) for place in order]
    return [Moved(i, j, int(before[i, j]), int(after[i, j])) for i, j in places if change[i, j]]


def agreement(target: Whole, teacher: Whole, student: Whole) -> Agreement:
    """Compares the answers of two networks, [N] each."""
    first, second = teacher == target, student == target
    return Agreement(
        both=int((first & second).sum()),
        teacher=int((first & ~second).sum()),
        student=int((~first & second).sum()),
        neither=int((~first & ~second).sum()),
        same=int((teacher == student).sum()),
    )


def reliability(answers: Answers, target: Whole) -> list[Bin]:
    """The bins of confidence that hold samples, lowest first."""
    place = np.clip(np.ceil(answers.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    right = answers.predicted == target
    found = []
    for number in range(BINS):
        held = place == number
        if held.any():
            mean, accuracy = float(answers.confidence[held].mean()), float(right[held].mean())
            found.append(Bin(number / BINS, (number + 1) / BINS, int(held.sum()), mean, accuracy))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error, 0..1: the mean over samples of |accuracy - confidence| of their bins.

    Equation (3) of Guo et al. 2017. Its value depends on the number of bins.
    """
    samples = sum(each.samples for each in bins)
    return sum(each.samples * abs(each.accuracy - each.confidence) for each in bins) / samples


def paired_difference(target: Whole, first: Whole, second: Whole) -> tuple[float, float]:
    """Accuracy of the second network minus that of the first, and half of its 95 % interval.

    Paired over samples: only those that one of the two got right count. Normal approximation; it tells what
    the finite test set leaves open, not what another seed would give.
    """
    gained = int(((first != target) & (second == target)).sum())
    lost = int(((first == target) & (second != target)).sum())
    samples = len(target)
    difference = (gained - lost) / samples
    spread = math.sqrt(max(gained + lost - (gained - lost) ** 2 / samples, 0.0))
    return difference, 1.96 * spread / samples


def disputed(first: Answers, second: Answers, most: int) -> list[int]:
    """Samples with different answers of which the less sure network is surest, most disputed first."""
    sure = np.minimum(first.confidence, second.confidence)
    sure = np.where(first.predicted != second.predicted, sure, -1.0)
    order = np.argsort(-sure, kind="stable")[:most]
    return [int(place) for place in order if sure[place] >= 0]
