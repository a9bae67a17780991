"""SimKD in plain loops over numbers, from the equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def pooled(value: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average: cell i averages rows floor(i H / h) to ceil((i + 1) H / h) - 1."""
    samples, channels, rows, columns = value.shape
    result = torch.zeros(samples, channels, height, width, dtype=value.dtype)
    for b in range(samples):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    cells = [
                        float(value[b, c, y, x])
                        for y in range(i * rows // height, math.ceil((i + 1) * rows / height))
                        for x in range(j * columns // width, math.ceil((j + 1) * columns / width))
                    ]
                    result[b, c, i, j] = sum(cells) / len(cells)
    return result


def convolved(value: Tensor, kernel: Tensor) -> Tensor:
    """Odd kernel, stride 1, zeros outside, no bias."""
    samples, _, rows, columns = value.shape
    reach = kernel.shape[2] // 2
    result = torch.zeros(samples, len(kernel), rows, columns, dtype=value.dtype)
    for b in range(samples):
        for o in range(len(kernel)):
            for y in range(rows):
                for x in range(columns):
                    total = 0.0
                    for i in range(-reach, reach + 1):
                        for j in range(-reach, reach + 1):
                            if 0 <= y + i < rows and 0 <= x + j < columns:
                                row = kernel[o, :, reach + i, reach + j]
                                total += float((value[b, :, y + i, x + j] * row).sum())
                    result[b, o, y, x] = total
    return result


def normed(value: Tensor, norm: nn.BatchNorm2d, *, training: bool) -> Tensor:
    """Batch norm and ReLU: by the batch in training, else by running statistics."""
    result = torch.zeros_like(value)
    for c in range(value.shape[1]):
        numbers = value[:, c].flatten().tolist()
        mean, variance = float(norm.running_mean[c]), float(norm.running_var[c])
        if training:
            mean = sum(numbers) / len(numbers)
            variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
        each = (value[:, c] - mean) / math.sqrt(variance + norm.eps) * norm.weight[c] + norm.bias[c]
        result[:, c] = each.clamp(min=0)
    return result


def projected(source: Tensor, layers: nn.Sequential, *, training: bool) -> Tensor:
    """The projector: three convolutions without bias, each with batch norm and ReLU."""
    for convolution, norm in ((0, 1), (3, 4), (6, 7)):
        source = normed(convolved(source, layers[convolution].weight), layers[norm], training=training)
    return source


def loss(student: Tensor, teacher: Tensor, layers: nn.Sequential) -> float:
    """The mean squared error after the larger map was averaged, batch norms in training."""
    if student.shape[2] > teacher.shape[2]:
        student = pooled(student, *teacher.shape[2:])
    elif student.shape[2] < teacher.shape[2]:
        teacher = pooled(teacher, *student.shape[2:])
    made = projected(student, layers, training=True)
    squares = [(a - b) ** 2 for a, b in zip(made.flatten().tolist(), teacher.flatten().tolist(), strict=True)]
    return sum(squares) / len(squares)
