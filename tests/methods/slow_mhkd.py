"""MHKD in plain loops over numbers, from the equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.methods.slow_simkd import convolved, normed


def head(value: Tensor, layers: nn.Sequential) -> list[list[float]]:
    """A head with convolutions by its layers, batch statistics: two blocks, the mean, Linear layers."""
    for convolution, norm in ((layers[0], layers[1]), (layers[3], layers[4])):
        value = convolved(value, convolution.weight) + convolution.bias[None, :, None, None]
        value = normed(value, norm, training=True)
    rows = []
    for sample in value:
        rows.append([sum(channel.flatten().tolist()) / channel.numel() for channel in sample])
    linear = [layer for layer in layers[8:] if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(linear):
        rows = [through(row, layer, relu=number < len(linear) - 1) for row in rows]
    return rows


def through(row: list[float], layer: nn.Linear, *, relu: bool) -> list[float]:
    """A Linear layer on one row."""
    made = []
    for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
        value = bias + sum(weight * entry for weight, entry in zip(weights, row, strict=True))
        made.append(max(value, 0.0) if relu else value)
    return made


def softmax(row: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(entry / temperature) for entry in row]
    return [each / sum(exponentials) for each in exponentials]


def divergence(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """T^2 times the mean over samples of KL(teacher || student)."""
    total = 0.0
    for own, other in zip(student, teacher, strict=True):
        for q, p in zip(softmax(own, temperature), softmax(other, temperature), strict=True):
            total += p * math.log(p / q)
    return temperature**2 * total / len(student)


def cross_entropy(rows: list[list[float]], labels: list[int]) -> float:
    """The mean over the samples that have a label."""
    known = [(row, label) for row, label in zip(rows, labels, strict=True) if label >= 0]
    return -sum(math.log(softmax(row, 1.0)[label]) for row, label in known) / len(known)


def terms(
    student: tuple[Tensor, list[Tensor], list[nn.Sequential]],
    teacher: tuple[Tensor, list[Tensor], list[nn.Sequential]],
    labels: list[int],
    temperature: float,
) -> dict[str, float]:
    """All terms of `joint`; each side is its output, its features and the layers of its heads."""
    outputs = [side[0].tolist() for side in (student, teacher)]
    found = {
        "hard": cross_entropy(outputs[0], labels),
        "soft": divergence(outputs[0], outputs[1], temperature),
    }
    for number in range(len(student[1])):
        own, other = (head(side[1][number], side[2][number]) for side in (student, teacher))
        found[f"head{number + 1}_soft"] = divergence(own, other, temperature)
        found[f"head{number + 1}_hard"] = cross_entropy(own, labels)
        found[f"teacher_head{number + 1}_hard"] = cross_entropy(other, labels)
    return found


def total(found: dict[str, float], weights: dict[str, float]) -> float:
    """The weighted sum of `joint`, weights by the paper's letters."""
    value = weights["gamma"] * found["hard"] + weights["alpha"] * found["soft"]
    for number in range(1, 1 + sum(name.startswith("teacher_head") for name in found)):
        inner = weights["kld"] * found[f"head{number}_soft"] + weights["ce"] * found[f"head{number}_hard"]
        value += weights["beta"] * inner + found[f"teacher_head{number}_hard"]
    return value


def mean_of_valid(tokens: Tensor, mask: Tensor) -> list[list[float]]:
    """The mean over valid tokens, a row a sample."""
    return [
        torch.stack([token for token, valid in zip(row, keep, strict=True) if valid]).mean(0).tolist()
        for row, keep in zip(tokens, mask, strict=True)
    ]
