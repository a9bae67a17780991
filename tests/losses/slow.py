"""The formulas once more, in plain loops over Python numbers, written apart from the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

Row = Sequence[float]


def softmax(row: Row, temperature: float = 1.0) -> list[float]:
    top = max(row)
    powers = [math.exp((value - top) / temperature) for value in row]
    total = sum(powers)
    return [power / total for power in powers]


def kl(first: Row, second: Row) -> float:
    total = 0.0
    for p, q in zip(first, second, strict=True):
        if p > 0:
            total += p * math.log(p / q)
    return total


def soft_loss(student: Sequence[Row], teacher: Sequence[Row], temperature: float) -> float:
    total = 0.0
    for own, other in zip(student, teacher, strict=True):
        total += kl(softmax(other, temperature), softmax(own, temperature))
    return temperature * temperature * total / len(student)


def decoupled(student: Row, teacher: Row, target: int, temperature: float) -> tuple[float, float]:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    two_p, two_q = [p[target], 1 - p[target]], [q[target], 1 - q[target]]
    rest_p = [value for place, value in enumerate(teacher) if place != target]
    rest_q = [value for place, value in enumerate(student) if place != target]
    non_target = kl(softmax(rest_p, temperature), softmax(rest_q, temperature))
    return temperature**2 * kl(two_p, two_q), temperature**2 * non_target


def standardized(row: Row, population: bool = False) -> list[float]:
    mean = sum(row) / len(row)
    square = sum((value - mean) ** 2 for value in row)
    deviation = math.sqrt(square / (len(row) if population else len(row) - 1))
    return [(value - mean) / (1e-7 + deviation) for value in row]


def js(student: Row, teacher: Row, temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return temperature**2 * (kl(p, middle) + kl(q, middle)) / 2


def bernoulli(student: Row, teacher: Row, temperature: float) -> float:
    total = 0.0
    for z, v in zip(student, teacher, strict=True):
        p, q = 1 / (1 + math.exp(-v / temperature)), 1 / (1 + math.exp(-z / temperature))
        total += kl([p, 1 - p], [q, 1 - q])
    return temperature**2 * total


def bucket(student: Row, teacher: Row, k: int, temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    order = sorted(range(len(teacher)), key=lambda place: -teacher[place])
    kept, dropped = order[:k], order[k:]
    merged_p = [p[i] for i in kept] + [sum(p[i] for i in dropped)]
    merged_q = [q[i] for i in kept] + [sum(q[i] for i in dropped)]
    return temperature**2 * kl(merged_p, merged_q)


def uniform(student: Row, teacher: Row, k: int, temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    order = sorted(range(len(teacher)), key=lambda place: -teacher[place])
    rest = sum(p[i] for i in order[k:])
    flat = [p[i] if i in order[:k] else rest / (len(p) - k) for i in range(len(p))]
    return temperature**2 * kl(flat, q)


def renormalized(student: Row, teacher: Row, k: int, temperature: float) -> float:
    q = softmax(student, temperature)
    order = sorted(range(len(teacher)), key=lambda place: -teacher[place])[:k]
    p = softmax([teacher[i] for i in order], temperature)
    return temperature**2 * kl(p, [q[i] for i in order])
