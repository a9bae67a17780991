"""CMKD once more, in plain loops over Python numbers, written apart from the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.losses.slow import Row, softmax, standardized
from tests.losses.slow_ranks import correlation, ordinary_ranks, projected_ranks, sigmoid_ranks


def deviation(row: Row) -> float:
    mean = sum(row) / len(row)
    return math.sqrt(sum((value - mean) ** 2 for value in row) / (len(row) - 1))


def entropy(row: Row, temperature: float) -> float:
    return -sum(p * math.log(p) for p in softmax(row, temperature) if p > 0) / math.log(len(row))


def values(row: Row, settings: dict[str, object]) -> list[float]:
    standard = standardized(row, population=bool(settings.get("population")))
    if settings.get("pearson_on") == "logits":
        return standard
    return softmax(standard, float(settings.get("temperature", 2.0)))


def ranks(row: Row, settings: dict[str, object], *, teacher: bool = False) -> list[float]:
    standard, classes = standardized(row, population=bool(settings.get("population"))), len(row)
    if teacher and settings.get("teacher_ranks") == "hard":
        return ordinary_ranks(standard)
    if settings.get("ranks") == "sigmoid":
        return sigmoid_ranks(standard, float(settings.get("sigmoid_scale", 2 / classes)))
    return projected_ranks(standard, float(settings.get("rank_strength", 3 / classes)))


def pair(student: Row, teacher: Row, settings: dict[str, object]) -> tuple[float, float]:
    """The Pearson and the Spearman loss of one sample."""
    if min(deviation(student), deviation(teacher)) <= 1e-6:
        return 1.0, 1.0
    own, other = ranks(student, settings), ranks(teacher, settings, teacher=True)
    if settings.get("spearman") == "squared":
        classes = len(student)
        square = sum((a - b) ** 2 for a, b in zip(own, other, strict=True))
        order = 6 * square / (classes * (classes * classes - 1))
    else:
        order = 1 - correlation(own, other)
    return 1 - correlation(values(student, settings), values(teacher, settings)), order


def difficulty(student: Row, teacher: Row, label: int, settings: dict[str, object]) -> float:
    temperature = float(settings.get("difficulty_temperature", 1.0))
    source = settings.get("difficulty_from", "teacher")
    if source == "label" and label >= 0:
        return 1 - softmax(teacher, temperature)[label]
    return entropy(student if source == "student" else teacher, temperature)


def terms(
    student: Sequence[Row], teacher: Sequence[Row], labels: Sequence[int], settings: dict[str, object]
) -> tuple[float, float]:
    """L_P and L_S of a batch, with the weights of the samples."""
    sums = [0.0, 0.0]
    for own, other, label in zip(student, teacher, labels, strict=True):
        value, order = pair(own, other, settings)
        hard = difficulty(own, other, label, settings)
        shares = {"complementary": (1 - hard, hard), "inverse": (hard, 1 - hard), "fixed": (1, 1)}
        first, second = shares[str(settings.get("weighting", "complementary"))]
        sums = [sums[0] + first * value, sums[1] + second * order]
    return sums[0] / len(student), sums[1] / len(student)
