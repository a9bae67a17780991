from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import softened_divergence, top_k
from limbeck.task import Classification, MultiLabel, Regression, Task, Tokens
from tests.losses import slow
from tests.losses.test_soft import gradient, logits
from tests.methods.stored import LABELS, TOKENS, kd, losses


def padded(seed: int, content: float) -> Tensor:
    value = logits(3, 4, 5, seed=seed)
    value[TOKENS == -100] = content
    return value


@pytest.mark.parametrize("settings", [{}, {"standardize": True}, {"variant": "decoupled", "warmup": 0}])
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "batchmean", "sum"])
def test_padding_may_hold_anything(settings: dict[str, object], reduction: str) -> None:
    found = []
    for content in (0.0, 7.5, math.nan):
        student = padded(0, content).requires_grad_()
        result = losses(
            kd(Tokens(), reduction=reduction, **settings), student, padded(1, content), targets=TOKENS
        )
        found.append((result.total, gradient(result.total, student)))
    for total, slope in found[1:]:
        assert torch.equal(total, found[0][0])
        assert torch.equal(slope, found[0][1])


def test_token_terms_equal_loops() -> None:
    student, teacher = padded(0, 0.0), padded(1, 0.0)
    each: list[list[float]] = [[], [], []]
    hard: list[list[float]] = [[], [], []]
    for row in range(3):
        for place in range(4):
            if TOKENS[row, place] >= 0:
                own, other = student[row, place].tolist(), teacher[row, place].tolist()
                each[row].append(slow.soft_loss([own], [other], 2.0))
                hard[row].append(-math.log(slow.softmax(own)[int(TOKENS[row, place])]))
    for name, values in (("soft", each), ("hard", hard)):
        total = sum(map(sum, values))
        expected = {
            "token_mean": total / 6,
            "sequence_mean": (sum(values[0]) / 4 + sum(values[1]) / 2) / 2,
            "batchmean": total / 3,
        }
        for reduction, value in expected.items():
            method = kd(Tokens(), temperature=2.0, reduction=reduction)
            found = losses(method, student, teacher, targets=TOKENS)
            assert float(found.terms[name]) == pytest.approx(value), (name, reduction)


@pytest.mark.parametrize("settings", [{}, {"standardize": True}, {"variant": "decoupled", "warmup": 0}])
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "batchmean", "sum"])
def test_a_batch_without_a_valid_token_is_zero_with_zero_gradient(
    settings: dict[str, object], reduction: str
) -> None:
    student = padded(0, math.nan).requires_grad_()
    method = kd(Tokens(causal=True), reduction=reduction, **settings)
    found = losses(method, student, padded(1, math.nan), targets=torch.full((3, 4), -100))
    assert float(found.total.detach()) == 0
    assert torch.equal(gradient(found.total, student), torch.zeros(3, 4, 5, dtype=torch.float64))


def test_causal_models_are_judged_one_position_later() -> None:
    student, teacher = padded(0, 0.0), padded(1, 0.0)
    found = losses(kd(Tokens(causal=True)), student, teacher, targets=TOKENS)
    mask = TOKENS[:, 1:] != -100
    torch.testing.assert_close(
        found.terms["soft"], softened_divergence(student[:, :-1][mask], teacher[:, :-1][mask], 4.0)
    )
    torch.testing.assert_close(
        found.terms["hard"], F.cross_entropy(student[:, :-1][mask], TOKENS[:, 1:][mask])
    )


def test_tokens_without_labels_follow_the_mask() -> None:
    student, teacher, mask = padded(0, math.nan), padded(1, math.nan), TOKENS != -100
    found = losses(kd(Tokens(), alpha=1.0), student, teacher, mask=mask)
    torch.testing.assert_close(found.total, softened_divergence(student[mask], teacher[mask], 4.0))
    every = losses(kd(Tokens(), alpha=1.0), logits(3, 4, 5), logits(3, 4, 5, seed=1))
    torch.testing.assert_close(
        every.total, softened_divergence(logits(12, 5), logits(3, 4, 5, seed=1).reshape(12, 5), 4.0)
    )


def test_tokens_without_labels_add_up_over_micro_batches() -> None:
    method, student, teacher = kd(Tokens(), alpha=1.0), logits(3, 4, 5), logits(3, 4, 5, seed=1)
    whole = losses(method, student, teacher).total
    pieces = [slice(0, 1), slice(1, 3)]
    parts = [losses(method, student[p], teacher[p], count={"samples": 1.5, "targets": 0.0}) for p in pieces]
    torch.testing.assert_close(sum(part.total for part in parts) / 2, whole)


def test_tokens_with_kept_classes() -> None:
    student, teacher = padded(0, 0.0), padded(1, 0.0)
    for task in (Tokens(), Tokens(causal=True)):
        found = losses(kd(task, temperature=2.0), student, top_k(teacher, 5, [2.0]), targets=TOKENS)
        torch.testing.assert_close(
            found.total, losses(kd(task, temperature=2.0), student, teacher, targets=TOKENS).total
        )


def test_independent_labels() -> None:
    student, teacher, targets = (
        logits(3, 4),
        logits(3, 4, seed=1),
        torch.tensor([[0, 1, 1, 0]] * 2 + [[-1] * 4]),
    )
    found = losses(kd(MultiLabel(), temperature=2.0), student, teacher, targets=targets)
    soft = sum(slow.bernoulli(z, v, 2.0) for z, v in zip(student.tolist(), teacher.tolist(), strict=True)) / 3
    hard = F.binary_cross_entropy_with_logits(student[:2], targets[:2].double(), reduction="sum") / 2
    assert float(found.terms["soft"]) == pytest.approx(soft)
    torch.testing.assert_close(found.terms["hard"], hard)
    mean = losses(kd(MultiLabel(), temperature=2.0, reduction="mean"), student, teacher, targets=targets)
    for name in found.terms:
        torch.testing.assert_close(mean.terms[name], found.terms[name] / 4)
    summed = losses(kd(MultiLabel(), temperature=2.0, reduction="sum"), student, teacher, targets=targets)
    torch.testing.assert_close(summed.terms["soft"], found.terms["soft"] * 3)
    torch.testing.assert_close(summed.terms["hard"], found.terms["hard"] * 2)  # the third has no labels


def test_the_margin_of_a_bounded_regression() -> None:
    student, teacher, targets = logits(4, 2), logits(4, 2, seed=1), logits(4, 2, seed=2)
    errors = [float((each - targets)[n].square().sum()) for each in (student, teacher) for n in range(4)]
    for margin in (0.0, 100.0):
        found = losses(
            kd(Regression(), regression="bounded", margin=margin), student, teacher, targets=targets
        )
        active = [own for own, bound in zip(errors[:4], errors[4:], strict=True) if own + margin > bound]
        assert float(found.terms["soft"]) == pytest.approx(sum(active) / 4)
    assert len(active) == 4
    assert any(own <= bound for own, bound in zip(errors[:4], errors[4:], strict=True))


def test_bounded_regression_skips_samples_without_target() -> None:
    student, teacher, targets = logits(4, 2), logits(4, 2, seed=1), logits(4, 2, seed=2)
    targets[1] = math.nan
    found = losses(kd(Regression(), regression="bounded", margin=1.0), student, teacher, targets=targets)
    keep = torch.tensor([True, False, True, True])
    expected = losses(
        kd(Regression(), regression="bounded", margin=1.0),
        student[keep],
        teacher[keep],
        targets=targets[keep],
    )
    torch.testing.assert_close(found.total, expected.total)
    flat = losses(
        kd(Regression(), regression="bounded"), student[:, :1], teacher[:, :1], targets=targets[:, 0]
    )
    assert torch.isfinite(flat.total)
    alone = kd(Regression(), regression="bounded", alpha=1.0)
    with pytest.raises(RequestError, match="bounded term needs labels"):
        losses(alone, student, teacher)
    with pytest.raises(RequestError, match=r"outputs \(4, 2\) and targets \(4,\); needed targets \(4, 2\)"):
        losses(alone, student, teacher, targets=targets[:, 0])


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (Classification(), {}),
        (Classification(), {"reduction": "mean"}),
        (Classification(), {"variant": "decoupled", "warmup": 0}),
        (MultiLabel(), {}),
        (Regression(), {"regression": "smooth_l1"}),
        (Regression(), {"regression": "bounded"}),
        (Tokens(), {}),
        (Tokens(causal=True), {}),
        (Tokens(), {"reduction": "batchmean"}),
        (Tokens(), {"reduction": "sequence_mean"}),
        (Tokens(causal=True), {"reduction": "sequence_mean"}),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else str(value),
)
def test_micro_batches_add_up_to_the_whole(task: Task, settings: dict[str, object]) -> None:
    shape = (3, 4, 5) if task.kind == "tokens" else (6, 4)
    student, teacher = logits(*shape), logits(*shape, seed=1)
    targets = {
        "classes": LABELS,
        "labels": torch.tensor([[0, 1, 1, 0], [-1] * 4] * 3),
        "values": torch.where(torch.arange(6)[:, None] == 2, torch.nan, logits(6, 4, seed=2)),
        "tokens": TOKENS,
    }[task.kind]
    method = kd(task, **settings)
    whole = losses(method, student, teacher, targets=targets)
    pieces = (
        [slice(0, 1), slice(1, 3), slice(3, None)] if task.kind != "tokens" else [slice(0, 1), slice(1, 3)]
    )
    every = task.counts({"inputs": student, "targets": targets})
    count = {name: value / len(pieces) for name, value in every.items()}
    parts = [
        losses(method, student[piece], teacher[piece], targets=targets[piece], count=count)
        for piece in pieces
    ]
    for name, term in whole.terms.items():
        torch.testing.assert_close(sum(part.terms[name] for part in parts) / len(pieces), term)


def test_a_sum_over_a_cut_batch_is_refused() -> None:
    with pytest.raises(RequestError, match="batchmean"):
        losses(
            kd(reduction="sum"),
            logits(6, 4),
            logits(6, 4),
            targets=LABELS,
            count={"samples": 3, "targets": 2},
        )
