"""The terms of LSHFM by plain loops over Python numbers, written apart from the code."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def hash_rows(features: Rows, weight: Rows, bias: Sequence[float]) -> list[list[float]]:
    """What each hyperplane says of each row."""
    return [
        [
            sum(w * x for w, x in zip(plane, row, strict=True)) + b
            for plane, b in zip(weight, bias, strict=True)
        ]
        for row in features
    ]


def lower_median_bias(features: Rows, weight: Rows) -> list[float]:
    """Minus the lower median of every hyperplane's values."""
    columns = zip(*hash_rows(features, weight, [0.0] * len(weight)), strict=True)
    return [-sorted(column)[(len(features) - 1) // 2] for column in columns]


def squares(student: Rows, teacher: Rows) -> list[float]:
    """Mean squared difference of each row."""
    return [
        sum((a - b) ** 2 for a, b in zip(own, other, strict=True)) / len(own)
        for own, other in zip(student, teacher, strict=True)
    ]


def bit_errors(student: Rows, teacher: Rows, weight: Rows, bias: Sequence[float]) -> list[float]:
    """Mean cross-entropy of the bits of each row, by the sigmoid."""
    errors = []
    pairs = zip(hash_rows(student, weight, bias), hash_rows(teacher, weight, bias), strict=True)
    for own, other in pairs:
        row = 0.0
        for value, target in zip(own, other, strict=True):
            probability = 1 / (1 + math.exp(-value))
            row -= math.log(probability if target > 0 else 1 - probability)
        errors.append(row / len(own))
    return errors


def masked_mean(values: Sequence[float], logits: Rows, labels: Sequence[int]) -> float:
    """The mean over rows whose largest logit is that of the label; 0 of none."""
    chosen = [
        value
        for value, row, label in zip(values, logits, labels, strict=True)
        if max(range(len(row)), key=row.__getitem__) == label
    ]
    return sum(chosen) / len(chosen) if chosen else 0.0
