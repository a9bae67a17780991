"""The terms of MLKD in plain loops over lists, written from the equations alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """0 where one of them has no direction."""
    lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else 0.0


def alignment(mapped: Rows, teacher: Rows) -> float:
    return 2 - 2 * sum(cosine(a, t) for a, t in zip(mapped, teacher, strict=True)) / len(mapped)


def probabilities(values: Sequence[float], temperature: float) -> list[float]:
    raised = [math.exp(value / temperature) for value in values]
    return [each / sum(raised) for each in raised]


def correlation(mapped: Rows, teacher: Rows, views: int, temperature: float) -> float:
    total, number = 0.0, 0
    upright = range(0, len(mapped), views)
    for row in range(len(mapped)):
        if row % views == 0:
            continue
        own, target = (
            probabilities([cosine(rows[row], rows[column]) for column in upright], temperature)
            for rows in (mapped, teacher)
        )
        total += sum(q * math.log(q / p) for q, p in zip(target, own, strict=True))
        number += 1
    return total / number


def categorical(student: Rows, teacher: Rows, labels: Sequence[int], temperature: float) -> float:
    """Embeddings before they are brought to length 1; rows whose label is -1 take no part."""
    kept = [row for row, label in enumerate(labels) if label >= 0]
    anchors = [rows[row] for rows in (student, teacher) for row in kept]
    classes = [labels[row] for _ in range(2) for row in kept]
    total = 0.0
    for one, anchor in enumerate(anchors):
        scores = [cosine(anchor, other) / temperature for other in anchors]
        largest = max(scores)
        below = sum(math.exp(s - largest) for k, s in enumerate(scores) if k != one) + 1e-7
        positives = [k for k in range(len(anchors)) if k != one and classes[k] == classes[one]]
        logs = [scores[k] - largest - math.log(below) for k in positives]
        total -= sum(logs) / len(positives)
    return total / len(anchors) if anchors else 0.0


def hard(logits: Rows, labels: Sequence[int], views: int) -> float:
    """Cross-entropy of the upright rows that have a label."""
    rows = [row for row in range(0, len(logits), views) if labels[row] >= 0]
    each = [-math.log(probabilities(logits[row], 1.0)[labels[row]]) for row in rows]
    return sum(each) / len(each) if each else 0.0
