"""Answers compared, against slow counting sample by sample."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest

from limbeck._report import answers as compare
from limbeck._report.answers import BINS, Answers

CLASSES = 4


def drawn(samples: int = 300) -> tuple[np.ndarray, Answers, Answers]:
    draw = np.random.default_rng(0)
    target = draw.integers(0, CLASSES, samples)
    told = [
        Answers(
            np.where(draw.random(samples) < share, target, draw.integers(0, CLASSES, samples)),
            draw.integers(1, 61, samples) / 60,  # many of them at the edges of bins
        )
        for share in (0.8, 0.5)
    ]
    return target, told[0], told[1]


def test_confusion_and_classes_count_samples() -> None:
    target, first, _ = drawn()
    counts = compare.confusion(target, first.predicted, CLASSES)
    for true, said in product(range(CLASSES), repeat=2):
        expected = sum(1 for t, p in zip(target, first.predicted, strict=True) if (t, p) == (true, said))
        assert counts[true, said] == expected
    samples, right = compare.right_by_class(target, first.predicted, CLASSES)
    assert samples.tolist() == counts.sum(1).tolist()
    assert right.tolist() == counts.diagonal().tolist()


def test_most_moved_are_the_largest_changes_of_wrong_answers() -> None:
    target, first, second = drawn()
    before, after = (compare.confusion(target, each.predicted, CLASSES) for each in (first, second))
    slow = sorted(
        (
            (-abs(int(after[i, j]) - int(before[i, j])), i, j)
            for i, j in product(range(CLASSES), repeat=2)
            if i != j and after[i, j] != before[i, j]
        )
    )[:5]
    found = compare.most_moved(before, after, 5)
    assert [(-abs(each.after - each.before), each.true, each.said) for each in found] == slow


def test_nothing_moved_between_equal_networks() -> None:
    target, first, _ = drawn()
    counts = compare.confusion(target, first.predicted, CLASSES)
    assert compare.most_moved(counts, counts, 5) == []
    assert compare.disputed(first, first, 12) == []


def test_agreement_counts_every_sample_once() -> None:
    target, teacher, student = drawn()
    found = compare.agreement(target, teacher.predicted, student.predicted)
    slow = {"both": 0, "teacher": 0, "student": 0, "neither": 0, "same": 0}
    for t, a, b in zip(target, teacher.predicted, student.predicted, strict=True):
        key = {(True, True): "both", (True, False): "teacher", (False, True): "student"}.get(
            (a == t, b == t), "neither"
        )
        slow[key] += 1
        slow["same"] += a == b
    assert vars(found) == slow
    assert found.samples == len(target)


def test_calibration_error_bin_by_bin() -> None:
    target, first, _ = drawn()
    members: dict[int, list[tuple[float, bool]]] = {}
    for t, p, c in zip(target, first.predicted, first.confidence, strict=True):
        number = next(n for n in range(BINS) if c <= (n + 1) / BINS + 1e-12)
        members.setdefault(number, []).append((c, p == t))
    slow = 0.0
    for held in members.values():
        confidence = math.fsum(c for c, _ in held) / len(held)
        accuracy = sum(right for _, right in held) / len(held)
        slow += len(held) * abs(accuracy - confidence)
    bins = compare.reliability(first, target)
    assert compare.calibration_error(bins) == pytest.approx(slow / len(target), rel=1e-12)
    assert [each.samples for each in bins] == [len(members[n]) for n in sorted(members)]


def test_calibration_error_of_a_network_that_knows_itself_is_zero() -> None:
    target = np.zeros(100, np.int64)
    predicted = np.array([0] * 80 + [1] * 20)
    assert compare.calibration_error(
        compare.reliability(Answers(predicted, np.full(100, 0.8)), target)
    ) == pytest.approx(0)
    sure = compare.reliability(Answers(predicted, np.ones(100)), target)
    assert compare.calibration_error(sure) == pytest.approx(0.2)


def test_paired_difference_is_that_of_the_accuracies_and_its_interval_holds() -> None:
    target, first, second = drawn()
    difference, half = compare.paired_difference(target, first.predicted, second.predicted)
    accuracies = [float((each.predicted == target).mean()) for each in (first, second)]
    assert difference == pytest.approx(accuracies[1] - accuracies[0])
    draw, drawn_again = random.Random(0), []
    pairs = list(zip(target, first.predicted, second.predicted, strict=True))
    for _ in range(2000):  # the bootstrap, another way to the same spread
        chosen = draw.choices(pairs, k=len(pairs))
        drawn_again.append(sum(int(b == t) - int(a == t) for t, a, b in chosen) / len(pairs))
    assert half == pytest.approx(1.96 * float(np.std(drawn_again)), rel=0.1)


def test_disputed_samples_are_those_of_which_both_are_surest() -> None:
    _, first, second = drawn()
    slow = sorted(
        (-min(first.confidence[n], second.confidence[n]), n)
        for n in range(len(first.predicted))
        if first.predicted[n] != second.predicted[n]
    )[:12]
    assert compare.disputed(first, second, 12) == [n for _, n in slow]
