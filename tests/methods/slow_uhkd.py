"""UHKD's spectra written again: sums over pixels and frequencies, in Python numbers."""

from __future__ import annotations

import cmath
import math

Maps = list  # [C][H][W] of numbers


def coefficient(channel: list[list[float]], u: int, v: int) -> complex:
    """One Fourier coefficient of a channel, the energy kept."""
    height, width = len(channel), len(channel[0])
    total = 0j
    for y in range(height):
        for x in range(width):
            total += channel[y][x] * cmath.exp(-2j * math.pi * (u * y / height + v * x / width))
    return total / math.sqrt(height * width)


def gain(u: int, v: int, size: tuple[int, int], sigma: float | None) -> float:
    if sigma is None:
        return 1.0
    rows, columns = (sigma * side / 2 for side in size)
    return math.exp(-(u**2) / (2 * rows**2) - v**2 / (2 * columns**2))


def parts(value: complex, representation: str, epsilon: float) -> list[float]:
    if representation == "complex":
        return [value.real, value.imag]
    magnitude = math.sqrt(value.real**2 + value.imag**2 + epsilon)
    return [magnitude if representation == "magnitude" else math.log(1 + magnitude)]


def frequencies(side: int) -> list[int]:
    """Those of a block or of a whole spectrum, in their order."""
    return [index - side // 2 for index in range(side)]


def cropped(
    maps: Maps, size: tuple[int, int], representation: str, sigma: float | None, epsilon: float
) -> Maps:
    """Frequencies of the block alone, weighted, then as asked for; of `complex` all real parts come first."""
    found: list[Maps] = []
    for channel in maps:
        block = [
            [
                parts(
                    gain(u, v, size, sigma) * coefficient(channel, u, v),
                    representation,
                    epsilon,
                )
                for v in frequencies(size[1])
            ]
            for u in frequencies(size[0])
        ]
        found.append(block)
    return by_part(found)


def pooled(
    maps: Maps, size: tuple[int, int], representation: str, sigma: float | None, epsilon: float
) -> Maps:
    """All frequencies as asked for, averaged to the block, then weighted."""
    whole = cropped(maps, (len(maps[0]), len(maps[0][0])), representation, None, epsilon)
    small = averaged(whole, size)
    return [
        [
            [value * gain(u, v, size, sigma) for value, v in zip(row, frequencies(size[1]), strict=True)]
            for row, u in zip(channel, frequencies(size[0]), strict=True)
        ]
        for channel in small
    ]


def by_part(blocks: list) -> Maps:
    """[C][rows][columns][parts] -> [parts * C][rows][columns]."""
    number = len(blocks[0][0][0])
    return [[[cell[part] for cell in row] for row in block] for part in range(number) for block in blocks]


def averaged(maps: Maps, size: tuple[int, int]) -> Maps:
    """Averages over windows from floor(i * H / k) to ceil((i + 1) * H / k)."""

    def windows(side: int, number: int) -> list[range]:
        return [range(i * side // number, -((-(i + 1) * side) // number)) for i in range(number)]

    def mean(channel: list[list[float]], rows: range, columns: range) -> float:
        values = [channel[y][x] for y in rows for x in columns]
        return sum(values) / len(values)

    return [
        [
            [mean(channel, rows, columns) for columns in windows(len(channel[0]), size[1])]
            for rows in windows(len(channel), size[0])
        ]
        for channel in maps
    ]


def unit_power(maps: Maps) -> Maps:
    values = [value for channel in maps for row in channel for value in row]
    root = math.sqrt(sum(value**2 for value in values) / len(values) + 1e-6)
    return [[[value / root for value in row] for row in channel] for channel in maps]


def projected(maps: Maps, weight: list[list[float]], bias: list[float]) -> Maps:
    """A linear map of the channels at every place."""
    height, width = len(maps[0]), len(maps[0][0])
    return [
        [
            [
                sum(w * channel[y][x] for w, channel in zip(row, maps, strict=True)) + shift
                for x in range(width)
            ]
            for y in range(height)
        ]
        for row, shift in zip(weight, bias, strict=True)
    ]


def error(
    student: list[Maps],
    teacher: list[Maps],
    size: tuple[int, int],
    weight: list[list[float]],
    bias: list[float],
    *,
    representation: str = "magnitude",
    filter: str = "gaussian",
    downsample: str = "crop",
    filter_student: bool = True,
    student_path: str = "spectral",
    normalise: str = "none",
    sigma: float = 0.5,
    epsilon: float = 1e-8,
) -> float:
    """L of one level, mean over samples, channels and frequencies."""
    low = sigma if filter == "gaussian" else None
    reduce = cropped if downsample == "crop" else pooled
    finish = unit_power if normalise == "rms" else lambda maps: maps
    squares = []
    for own, other in zip(student, teacher, strict=True):
        maps = projected(own, weight, bias)
        if student_path == "direct":
            found = averaged(maps, size)
        else:
            found = reduce(maps, size, representation, low if filter_student else None, epsilon)
        target = finish(reduce(other, size, representation, low, epsilon))
        for mine, theirs in zip(finish(found), target, strict=True):
            for row, goal in zip(mine, theirs, strict=True):
                squares += [(a - b) ** 2 for a, b in zip(row, goal, strict=True)]
    return sum(squares) / len(squares)
