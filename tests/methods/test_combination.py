"""Several methods at once: the sum of their losses, one forward, one student in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import limbeck
from limbeck.engine import Training
from limbeck.errors import Interrupted, RequestError
from limbeck.method import Method, Stage, Update
from limbeck.methods import KD, LSHFM, SSKD, Plain, SemCKD, SimKD
from limbeck.methods.combination import Combination
from limbeck.task import MultiLabel
from tests.engine.tiny import StopAfter, same, weights
from tests.methods.tapped import cnn, dataset, images

WEIGHTS = (1.0, 0.3)


def pair() -> tuple[nn.Module, nn.Module]:
    return cnn(3, 4, 5, seed=1), cnn(4, 6, 8, seed=2)


def parts(student: nn.Module, teacher: nn.Module) -> list[Method]:
    torch.manual_seed(3)
    feature = SemCKD(student, teacher, example=images(), hard_weight=0.0, soft_weight=0.0)
    return [KD(student, teacher), feature]


def combined() -> Combination:
    return Combination(parts(*pair()), WEIGHTS)


def test_it_is_the_weighted_sum_with_its_terms_apart() -> None:
    methods, batch = parts(*pair()), images()
    apart = [method(batch) for method in methods]
    together = combined()(batch)
    expected = {
        f"{method.card.slug}.{term}": value
        for method, losses in zip(methods, apart, strict=True)
        for term, value in losses.terms.items()
    }
    assert set(together.terms) == set(expected)
    for term, value in together.terms.items():
        assert value.item() == pytest.approx(expected[term].item(), rel=1e-5), term
    total = sum(weight * losses.total.item() for weight, losses in zip(WEIGHTS, apart, strict=True))
    assert together.total.item() == pytest.approx(total, rel=1e-5)


def test_its_gradient_is_the_sum_of_theirs() -> None:
    methods, batch = parts(*pair()), images()
    student = methods[0].student
    assert student is not None
    for method, weight in zip(methods, WEIGHTS, strict=True):
        (weight * method(batch).total).backward()
    expected = [parameter.grad.clone() for parameter in student.parameters()]
    method = combined()
    method(batch).total.backward()
    assert method.student is not None
    for parameter, gradient in zip(method.student.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_networks_run_once_a_step() -> None:
    method, calls = combined(), []
    assert method.student is not None
    assert method.teacher is not None
    method(images())  # the dry pass of the taps
    for network in (method.student, method.teacher.model):
        network.register_forward_hook(lambda module, *_: calls.append(module))
    method(images())
    assert calls == [method.teacher.model, method.student]


def test_the_student_is_saved_once_and_the_teacher_never() -> None:
    method = combined()
    names = list(method.state_dict())
    assert sum(name.endswith("fc.weight") for name in names) == 1
    assert method.student is not None
    own = sum(parameter.numel() for parameter in method.student.parameters())
    added = sum(p.numel() for p in parts(*pair())[1].parameters()) - own
    assert sum(parameter.numel() for parameter in method.parameters()) == own + added
    assert {name.split(".")[0] for name in names} == {"student", "semckd"}


def test_the_same_method_twice_is_numbered() -> None:
    student, teacher = pair()
    method = Combination([KD(student, teacher), KD(student, teacher, temperature=2.0)])
    assert set(method(images()).terms) == {"kd.hard", "kd.soft", "kd2.hard", "kd2.soft"}
    assert method.card.minimum == {"kd.soft": 0.0, "kd2.soft": 0.0}
    assert method.top_k_temperatures() == [2.0, 4.0]


def test_what_the_loop_sets_reaches_every_method() -> None:
    student, teacher = pair()
    method = Combination([KD(student, teacher), KD(student, teacher, variant="decoupled")])
    method.epoch = 5  # a quarter of the ramp of 20 epochs
    losses = method(images())
    assert losses.weights["kd2.target"] == pytest.approx(0.25)


def test_it_trains_resumes_and_gives_the_student(tmp_path: Path) -> None:
    def run(folder: str, **options: Any) -> limbeck.Method:
        method = combined()
        settings = Training(epochs=2, batch_size=8, schedule="none", learning_rate=0.05)
        limbeck.fit(method, dataset(32), settings=settings, folder=tmp_path / folder, **options)
        return method

    whole, stop = run("whole"), StopAfter(5)
    with pytest.raises(Interrupted):
        run("cut", listener=stop, interruption=stop.interruption)
    assert same(weights(whole), weights(run("cut", resume=True)))
    deployed = whole.deployable()
    assert set(deployed.state_dict()) == set(cnn(3, 4, 5).state_dict())
    assert deployed(images()["inputs"]).shape == (8, 4)


def other_student() -> list[Method]:
    _, teacher = pair()
    return [KD(cnn(3, 4, 5), teacher), KD(cnn(3, 4, 5), teacher)]


def other_teacher() -> list[Method]:
    student, _ = pair()
    return [KD(student, cnn(4, 6, 8)), KD(student, cnn(4, 6, 8))]


def no_teacher() -> list[Method]:
    student, teacher = pair()
    return [KD(student, teacher), Plain(student)]


def several_stages() -> list[Method]:
    student, teacher = pair()
    return [KD(student, teacher), SSKD(student, teacher, example=images())]


def other_task() -> list[Method]:
    student, teacher = pair()
    return [KD(student, teacher), KD(student, teacher, task=MultiLabel())]


def two_deployed() -> list[Method]:
    student, teacher = pair()
    return [SimKD(student, teacher, example=images()), SimKD(student, teacher, example=images())]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parts(*pair())[:1], "1 methods; a combination has at least 2"),
        (other_student, "kd has another student than kd"),
        (other_teacher, "kd has another teacher than kd"),
        (other_task, "kd has another task than kd"),
        (no_teacher, "plain has not one student that trains and one teacher"),
        (several_stages, "sskd trains in several stages"),
        (two_deployed, "simkd and simkd each deploy a network of their own"),
    ],
)
def test_what_does_not_go_together_is_refused(make: Callable[[], list[Method]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Combination(make())


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_wrong_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(RequestError, match="needed one above 0 for each"):
        Combination(parts(*pair()), weights)


@pytest.mark.parametrize(
    ("update", "stage"),
    [
        ({"rate": 0.1}, {}),
        ({"every": 2}, {}),
        ({"optimizer": {"momentum": 0.5}}, {}),
        ({}, {"renew": 1}),
    ],
)
def test_what_one_update_would_lose_is_refused(update: dict[str, Any], stage: dict[str, Any]) -> None:
    methods = parts(*pair())
    student = {"student": methods[0].student}
    methods[0].stages = lambda: [Stage("train", [Update("student", student, **update)], **stage)]
    with pytest.raises(RequestError, match="kd begins anew within its stage, or has an optimizer, rate"):
        Combination(methods)


@pytest.mark.parametrize("first", [True, False])
def test_its_score_counts_where_that_of_any_method_does(first: bool) -> None:
    student, teacher = pair()
    labels = KD(student, teacher)
    features = LSHFM(student, teacher, example=images(), hard_weight=0.0, soft_weight=0.0)
    assert not features.stages()[0].scored
    (stage,) = Combination([labels, features] if first else [features, labels]).stages()
    assert stage.scored
