"""Small networks and an independent slow reference for the tests of peer-mutual KD."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

CLASSES, FEATURES = 4, 5


def net(
    seed: int, width: int = 6, *, classes: int = CLASSES, norm: bool = False, dropout: float = 0.0
) -> nn.Module:
    """A small float64 perceptron, with batch statistics where asked."""
    torch.manual_seed(seed)
    middle = nn.BatchNorm1d(width) if norm else nn.Identity()
    parts = (nn.Linear(FEATURES, width), middle, nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, classes))
    return nn.Sequential(*parts).double()


def batch(seed: int = 0, samples: int = 6, *, unlabelled: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, FEATURES, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (samples,), generator=generator)
    targets[:unlabelled] = -1
    return {"inputs": inputs, "targets": targets}


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, copied."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    top = max(row)
    powers = [math.exp((value - top) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def kl(target: list[float], predicted: list[float]) -> float:
    return sum(q * (math.log(q) - math.log(p)) for q, p in zip(target, predicted, strict=True) if q > 0)


def reference(
    outputs: dict[str, Tensor], targets: Tensor, settings: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """The terms of every student by plain loops over samples and peers, in the words of the equations."""
    students = {name: output.tolist() for name, output in outputs.items() if name != "teacher"}
    found = {}
    for name, own in students.items():
        labelled = [b for b, label in enumerate(targets.tolist()) if label >= 0]
        ce = sum(-math.log(softmax(own[b])[targets[b]]) for b in labelled) / max(len(labelled), 1)
        hot = settings["temperature"]
        teacher = [
            kl(softmax(v, hot), softmax(z, hot))
            for v, z in zip(outputs["teacher"].tolist(), own, strict=True)
        ]
        others = [rows for other, rows in students.items() if other != name]
        found[name] = {
            "cross_entropy": ce,
            "teacher": hot**2 * sum(teacher) / len(own),
            "peers": peer_term(own, others, settings),
        }
    return found


def peer_term(own: list[list[float]], others: list[list[list[float]]], settings: dict[str, Any]) -> float:
    hot, kind = settings["peer_temperature"], settings["peer"]
    total = 0.0
    for b, row in enumerate(own):
        p = softmax(row, hot)
        each = [softmax(rows[b], hot) for rows in others]
        if kind == "ensemble":
            each = [[sum(column) / len(each) for column in zip(*each, strict=True)]]
        for q in each:
            middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            value = kl(q, p) if kind != "js" else (kl(q, middle) + kl(p, middle)) / 2
            total += value / (len(each) if settings["peer_reduction"] == "mean" else 1)
    return hot**2 * total / len(own)
