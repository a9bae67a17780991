from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from limbeck.errors import LimbeckError, RequestError, RunError
from limbeck.losses import top_k
from limbeck.methods import KD
from limbeck.task import Classification, MultiLabel, Regression, Tokens
from tests.losses.test_soft import logits
from tests.methods.stored import LABELS, TOKENS, kd, losses


@pytest.mark.parametrize(
    ("variant", "standardized", "expected"),
    [
        ("soft", False, (4.0, 0.1, 0.9, 0)),
        ("soft", True, (2.0, 0.1, 9.0, 0)),
        ("decoupled", False, (4.0, 1.0, 1.0, 20)),
        ("decoupled", True, (2.0, 1.0, 9.0, 20)),
    ],
)
def test_defaults_are_the_papers(variant: str, standardized: bool, expected: tuple[float, ...]) -> None:
    method = kd(variant=variant, standardize=standardized)
    assert (method.temperature, method.hard_weight, method.soft_weight, method.warmup) == expected
    assert (method.target_weight, method.non_target_weight) == (1.0, 8.0)
    assert kd(variant=variant, standardize=standardized, warmup=3, temperature=7.0).warmup == 3


def test_both_forms_of_weights_are_kept() -> None:
    short = kd(alpha=0.25)
    assert (short.alpha, short.hard_weight, short.soft_weight) == (0.25, 0.75, 0.25)
    pair = kd(hard_weight=0.0, soft_weight=3.0)
    assert (pair.alpha, pair.hard_weight, pair.soft_weight) == (None, 0.0, 3.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"alpha": 1.5}, "alpha 1.5"),
        ({"alpha": -0.1}, "alpha -0.1"),
        ({"alpha": math.nan}, "alpha nan"),
        ({"alpha": 0.5, "hard_weight": 1.0}, "alpha beside"),
        ({"alpha": 0.5, "soft_weight": 1.0}, "alpha beside"),
        ({"hard_weight": 1.0}, "give both"),
        ({"hard_weight": -1.0, "soft_weight": 1.0}, "not both 0"),
        ({"hard_weight": 1.0, "soft_weight": -1.0}, "not both 0"),
        ({"hard_weight": 0.0, "soft_weight": 0.0}, "not both 0"),
        ({"variant": "dkd"}, "variant 'dkd'"),
        ({"variant": "decoupled", "target_weight": -1.0}, "target_weight -1.0"),
        ({"variant": "decoupled", "non_target_weight": -1.0}, "non_target_weight -1.0"),
        ({"variant": "decoupled", "rest": "uniform"}, 'only read with variant = "soft"'),
        ({"non_target_weight": 2.0}, 'only read with variant = "decoupled"'),
        ({"target_weight": 2.0}, 'only read with variant = "decoupled"'),
        ({"population": True}, "only read with standardize"),
        ({"margin": 1.0, "task": Regression()}, "bounded"),
        ({"mixing": "geometric"}, "several teachers"),
        ({"variant": "decoupled", "task": Classification(2)}, "at least 3"),
        ({"variant": "decoupled", "task": MultiLabel()}, "labels"),
        ({"standardize": True, "task": Regression()}, "values"),
        ({"warmup": -1}, "warmup -1"),
        ({"reduction": "none"}, "reduction 'none'"),
        ({"reduction": "token_mean"}, "reduction 'token_mean' for classes"),
        ({"reduction": "mean", "task": Tokens()}, "token_mean, sequence_mean"),
        ({"regression": "bounded"}, "for values"),
        ({"regression": "huber", "task": Regression()}, "needed mse"),
        ({"margin": -1.0}, "margin -1.0"),
        ({"rest": "drop"}, "rest 'drop'"),
        ({"mixing": "harmonic"}, "harmonic"),
        ({"teacher_weights": [0.5, 0.5]}, "for 1 teachers"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        kd(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give one of the two"),
        ({"teacher": nn.Identity(), "teachers": [nn.Identity()]}, "give one of the two"),
        ({"teachers": []}, "without teachers"),
        ({"teachers": [nn.Identity()] * 2, "teacher_weights": [0.5, 0.6]}, "sum to 1"),
        ({"teachers": [nn.Identity()] * 2, "teacher_weights": [1.0]}, "2 numbers"),
        ({"teachers": [nn.Identity()] * 2, "teacher_weights": [math.nan, 1.0]}, "sum to 1"),
        ({"teachers": [nn.Identity()] * 2, "task": Regression()}, "several teachers"),
    ],
)
def test_wrong_teachers_are_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        KD(nn.Identity(), **arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("student", "teacher", "batch", "words"),
    [
        (logits(6, 4), logits(6, 5), {"targets": LABELS}, "(6, 4) and teacher outputs (6, 5)"),
        (logits(6, 4), top_k(logits(6, 5), 2, [4.0]), {"targets": LABELS}, "(6, 5)"),
        (logits(6, 4), logits(6, 4), {"targets": LABELS + 2}, "label 5 for 4 classes"),
        (logits(6, 4), logits(6, 4), {"targets": LABELS - 1}, "label -2 for 4 classes"),
        (logits(6, 4), logits(6, 4), {"targets": LABELS[:5]}, "(5,)"),
        (logits(6, 4)[:, 0], logits(6, 4)[:, 0], {"targets": LABELS}, "classes need 2 axes"),
    ],
)
def test_wrong_batches_are_refused(student, teacher, batch: dict[str, object], words: str) -> None:
    with pytest.raises(LimbeckError) as caught:
        losses(kd(), student, teacher, **batch)
    assert words in str(caught.value)


def test_decoupled_batches_that_it_cannot_take_are_refused() -> None:
    method = kd(variant="decoupled", hard_weight=0.0, soft_weight=1.0, warmup=0)
    with pytest.raises(RequestError, match="of 2 classes; it needs at least 3"):
        losses(method, logits(6, 2), logits(6, 2, seed=1), targets=LABELS.clamp(max=1))
    with pytest.raises(RequestError, match=r"outputs \(6, 4\) and targets \(5,\)"):
        losses(method, logits(6, 4), logits(6, 4, seed=1), targets=LABELS[:5])


def test_one_class_cannot_be_standardised() -> None:
    with pytest.raises(RequestError, match="standardisation needs at least 2 classes"):
        losses(kd(standardize=True, alpha=1.0), logits(6, 1), logits(6, 1, seed=1))


def test_wrong_token_batches_are_refused() -> None:
    student, teacher = logits(3, 4, 5), logits(3, 4, 5, seed=1)
    for batch, words in (
        ({"targets": TOKENS, "mask": torch.ones(3, 5)}, "mask (3, 5)"),
        ({"targets": TOKENS + 2}, "label"),
        ({"targets": TOKENS[:, :3]}, "(3, 3)"),
    ):
        with pytest.raises(RequestError) as caught:
            losses(kd(Tokens()), student, teacher, **batch)
        assert words in str(caught.value)
    with pytest.raises(RequestError, match="both must have one shape"):
        losses(kd(Tokens()), student, logits(3, 4, 6), targets=TOKENS)
    with pytest.raises(RequestError, match="top-k targets are for classes"):
        losses(kd(MultiLabel(), alpha=1.0), logits(6, 4), top_k(logits(6, 4), 2, [4.0]))
    method = KD(nn.Identity(), teachers=[nn.Identity()] * 2)
    with pytest.raises(RequestError, match="cannot be mixed"):
        losses(method, logits(6, 4), [logits(6, 4), top_k(logits(6, 4), 2, [4.0])], targets=LABELS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_teachers_that_are_not_finite_are_named(value: float) -> None:
    teacher = logits(6, 4, seed=1)
    teacher[2, 1] = value
    with pytest.raises(RunError, match="teacher outputs are not finite in 1 of 6 rows, first in row 2"):
        losses(kd(), logits(6, 4), teacher, targets=LABELS)


def test_values_are_looked_at_in_every_step() -> None:
    method, student, teacher = kd(), logits(6, 4), logits(6, 4, seed=1)
    losses(method, student, teacher, targets=LABELS)
    with pytest.raises(RequestError, match="label 5 for 4 classes"):
        losses(method, student, teacher, targets=LABELS + 2)
    teacher[2, 1] = math.nan
    with pytest.raises(RunError, match="first in row 2"):
        losses(method, student, teacher, targets=LABELS)


def test_probabilities_in_place_of_logits_are_warned_of_once() -> None:
    method = kd()
    with pytest.warns(UserWarning, match="teacher seems to return probabilities"):
        losses(method, logits(6, 4), logits(6, 4).softmax(1), targets=LABELS)
    losses(method, logits(6, 4), logits(6, 4).softmax(1), targets=LABELS)
    with pytest.warns(UserWarning, match="student seems to return probabilities"):
        losses(kd(), logits(6, 4).softmax(1), logits(6, 4), targets=LABELS)


def test_equal_logits_in_a_row_are_warned_of_when_standardised() -> None:
    with pytest.warns(UserWarning, match="no deviation"):
        losses(kd(standardize=True), torch.zeros(6, 4), logits(6, 4).float(), targets=LABELS)
