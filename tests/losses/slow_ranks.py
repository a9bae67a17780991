"""Ranks and correlation once more, in plain loops over Python numbers, written apart from the package."""

from __future__ import annotations

import math

from tests.losses.slow import Row


def correlation(one: Row, other: Row) -> float:
    first, second = sum(one) / len(one), sum(other) / len(other)
    shared = sum((a - first) * (b - second) for a, b in zip(one, other, strict=True))
    lengths = [math.sqrt(sum((a - mean) ** 2 for a in row)) for row, mean in ((one, first), (other, second))]
    return shared / (lengths[0] * lengths[1])


def ordinary_ranks(row: Row) -> list[float]:
    """How many entries are smaller, and half of those that are equal."""
    return [sum(other < own for other in row) + (sum(other == own for other in row) + 1) / 2.0 for own in row]


def blocks(values: Row) -> list[int]:
    """Pool adjacent violators: the lengths of the blocks of the nearest non-increasing sequence."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] < pools[-1][0] / pools[-1][1]:
            total, number = pools.pop()
            pools[-1] = (pools[-1][0] + total, pools[-1][1] + number)
    return [number for _, number in pools]


def projected_ranks(row: Row, strength: float) -> list[float]:
    order = sorted(range(len(row)), key=lambda place: -row[place])
    scaled = [row[place] / strength for place in order]
    differences = [value - (len(row) - place) for place, value in enumerate(scaled)]
    ranks = [0.0] * len(row)
    start = 0
    for number in blocks(differences):
        mean = sum(differences[start : start + number]) / number
        for place in range(start, start + number):
            ranks[order[place]] = scaled[place] - mean
        start += number
    return ranks


def sigmoid_ranks(row: Row, scale: float) -> list[float]:
    return [
        1 + sum(1 / (1 + math.exp((other - own) / scale)) for k, other in enumerate(row) if k != place)
        for place, own in enumerate(row)
    ]
