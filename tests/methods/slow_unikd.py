"""UniKD's fusion, heads and terms written again: sums over cells and channels, in Python numbers."""

from __future__ import annotations

import math

from tests.methods.slow_uhkd import projected

Map = list  # [C][H][W] of numbers
Matrix = list  # rows of numbers


def relu(maps: Map) -> Map:
    return [[[max(value, 0.0) for value in row] for row in channel] for channel in maps]


def around(maps: Map, kernel: list) -> Map:
    """A 3x3 convolution, zeros around the map."""
    height, width = len(maps[0]), len(maps[0][0])

    def cell(out: list, y: int, x: int) -> float:
        total = 0.0
        for channel, plane in zip(maps, out, strict=True):
            for i in range(3):
                for j in range(3):
                    row, column = y + i - 1, x + j - 1
                    if 0 <= row < height and 0 <= column < width:
                        total += plane[i][j] * channel[row][column]
        return total

    return [[[cell(out, y, x) for x in range(width)] for y in range(height)] for out in kernel]


def nearest(maps: Map, size: tuple[int, int]) -> Map:
    height, width = len(maps[0]), len(maps[0][0])
    rows = [y * height // size[0] for y in range(size[0])]
    columns = [x * width // size[1] for x in range(size[1])]
    return [[[channel[y][x] for x in columns] for y in rows] for channel in maps]


def gated(own: Map, deeper: Map, weight: Matrix, bias: list[float]) -> Map:
    """Both maps, each times its gate."""
    one, two = projected([*own, *deeper], weight, bias)

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    return [
        [
            [mine[y][x] * sigmoid(one[y][x]) + theirs[y][x] * sigmoid(two[y][x]) for x in range(len(mine[0]))]
            for y in range(len(mine))
        ]
        for mine, theirs in zip(own, deeper, strict=True)
    ]


def fused(levels: list[Map], reduce: list, gates: list, out: list, sizes: list[tuple[int, int]]) -> Map:
    """AFF of one sample; levels deepest first, `gates` a pair of weight and bias for each but the first."""
    residual: Map = []
    for number, (maps, weight, size) in enumerate(zip(levels, reduce, sizes, strict=True)):
        own = relu(projected(maps, weight, [0.0] * len(weight)))
        if number:
            deeper = nearest(residual, (len(own[0]), len(own[0][0])))
            own = gated(own, deeper, *gates[number - 1])
        residual = nearest(own, size)
    return relu(around(residual, out))


def predicted(maps: Map, weight: Matrix, bias: list[float]) -> list[float]:
    """A Linear of the averages over space."""
    means = [sum(map(sum, channel)) / (len(channel) * len(channel[0])) for channel in maps]
    return [
        sum(w * m for w, m in zip(row, means, strict=True)) + b for row, b in zip(weight, bias, strict=True)
    ]


def sample(mean: list[float], logs: list[float], noise: list[float]) -> list[float]:
    return [m + math.exp(v / 2) * e for m, v, e in zip(mean, logs, noise, strict=True)]


def softmax(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(predicted: Matrix, target: Matrix, temperature: float) -> float:
    """kl_T, the mean over samples."""
    total = 0.0
    for one, two in zip(predicted, target, strict=True):
        q, p = softmax(one, temperature), softmax(two, temperature)
        total += sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
    return temperature**2 * total / len(target)


def gaussian(mean: Matrix, logs: Matrix, target_mean: Matrix, target_logs: Matrix) -> float:
    """KL of the target's Gaussian from the predicted one, the mean over samples."""
    total = 0.0
    for row in zip(mean, logs, target_mean, target_logs, strict=True):
        for m, v, n, w in zip(*row, strict=True):
            total += 0.5 * (v - w + (math.exp(w) + (n - m) ** 2) / math.exp(v) - 1)
    return total / len(mean)


def decoupled(
    student: Matrix, teacher: Matrix, labels: list[int], temperature: float, alpha: float, beta: float
) -> float:
    """dkd before its ramp, the mean over samples."""
    total = 0.0
    for one, two, label in zip(student, teacher, labels, strict=True):
        q, p = softmax(one, temperature)[label], softmax(two, temperature)[label]
        binary = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        rest = [[v for k, v in enumerate(row) if k != label] for row in (one, two)]
        total += alpha * temperature**2 * binary + beta * divergence([rest[0]], [rest[1]], temperature)
    return total / len(labels)
