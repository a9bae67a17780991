"""SemCKD's semantic term written again: plain loops over samples, layers and pixels, in Python numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.methods import SemCKD


def attention_weights(
    method: SemCKD, student: list[Tensor], teacher: list[Tensor]
) -> list[list[list[float]]]:
    """The weights a[n][i][j]."""
    queries = [
        embedded(state(network), gram(value))
        for network, value in zip(method.association.queries, student, strict=True)
    ]
    keys = [
        embedded(state(network), gram(value))
        for network, value in zip(method.association.keys, teacher, strict=True)
    ]
    found = []
    for n in range(len(student[0])):
        rows = []
        for query in queries:
            energies = [dot(query[n], key[n]) / method.attention_temperature for key in keys]
            powers = [math.exp(e) for e in energies]
            rows.append([p / sum(powers) for p in powers])
        found.append(rows)
    return found


def errors(method: SemCKD, student: list[Tensor], teacher: list[Tensor]) -> list[list[list[float]]]:
    """The errors m[n][i][j]."""
    found: list[list[list[float]]] = [[[] for _ in student] for _ in student[0]]
    for i, own in enumerate(student):
        for j, other in enumerate(teacher):
            size = min(own.shape[2], other.shape[2])
            projected = project(state(method.projections[i][j].layers), pooled(own.tolist(), size))
            target = pooled(other.tolist(), size)
            for n in range(len(own)):
                squares = [
                    (projected[n][c][y][x] - target[n][c][y][x]) ** 2
                    for c in range(len(target[n]))
                    for y in range(size)
                    for x in range(size)
                ]
                found[n][i].append(sum(squares) / len(squares))
    return found


def semantic(weights: list, distances: list) -> float:
    """L_sem from a and m."""
    total = 0.0
    for row, errors_of in zip(weights, distances, strict=True):
        for i in range(len(row)):
            for j in range(len(row[i])):
                total += row[i][j] * errors_of[i][j]
    return total / (len(weights) * len(weights[0]))


def state(module: torch.nn.Module) -> dict[str, list]:
    return {name: value.tolist() for name, value in module.state_dict().items()}


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def gram(value: Tensor) -> list[list[float]]:
    rows = [sample.reshape(-1).tolist() for sample in value]
    return [[dot(a, b) for b in rows] for a in rows]


def embedded(weights: dict[str, list], matrix: list[list[float]]) -> list[list[float]]:
    found = []
    for row in matrix:
        hidden = [
            max(dot(w, row) + b, 0.0)
            for w, b in zip(weights["hidden.weight"], weights["hidden.bias"], strict=True)
        ]
        out = [dot(w, hidden) + b for w, b in zip(weights["out.weight"], weights["out.bias"], strict=True)]
        length = math.sqrt(dot(out, out))
        found.append([value / length for value in out])
    return found


def pooled(maps: list, size: int) -> list:
    """Averages over windows from floor(k * H / size) to ceil((k + 1) * H / size)."""
    high = len(maps[0][0])
    windows = [(k * high // size, -((-(k + 1) * high) // size)) for k in range(size)]

    def mean(channel: list[list[float]], rows: tuple[int, int], columns: tuple[int, int]) -> float:
        values = [channel[y][x] for y in range(*rows) for x in range(*columns)]
        return sum(values) / len(values)

    return [[[[mean(c, r, q) for q in windows] for r in windows] for c in sample] for sample in maps]


def convolved(maps: list, kernel: list) -> list:
    """Zero padding that keeps the size."""
    reach, size = len(kernel[0][0]) // 2, len(maps[0][0])

    def value(sample: list, filters: list, y: int, x: int) -> float:
        total = 0.0
        for channel, weights in zip(sample, filters, strict=True):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < size and 0 <= x + dx < size:
                        total += channel[y + dy][x + dx] * weights[dy + reach][dx + reach]
        return total

    return [
        [[[value(sample, f, y, x) for x in range(size)] for y in range(size)] for f in kernel]
        for sample in maps
    ]


def normalised(maps: list, scale: list[float], shift: list[float]) -> list:
    """Batch statistics, then ReLU."""
    found = [[None] * len(scale) for _ in maps]
    for c, (gain, bias) in enumerate(zip(scale, shift, strict=True)):
        values = [v for sample in maps for row in sample[c] for v in row]
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + 1e-5)
        for n, sample in enumerate(maps):
            found[n][c] = [[max((v - mean) / deviation * gain + bias, 0.0) for v in row] for row in sample[c]]
    return found


def project(weights: dict[str, list], maps: list) -> list:
    maps = normalised(convolved(maps, weights["0.weight"]), weights["1.weight"], weights["1.bias"])
    maps = normalised(convolved(maps, weights["3.weight"]), weights["4.weight"], weights["4.bias"])
    return convolved(maps, weights["6.weight"])
