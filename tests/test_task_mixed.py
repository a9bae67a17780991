"""The loss of mixed samples: own and partner's target by their share, also cut into micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Record
from limbeck.errors import RequestError
from limbeck.methods import KD, SSKD, PeerMutualKD, Plain, SemCKD
from limbeck.task import Classification, MultiLabel, Regression, Tokens
from tests.engine.tiny import cnn, mlp
from tests.methods import tapped


def batch(targets: list[int], partners: list[int], share: float = 0.7) -> dict[str, Any]:
    number = len(targets)
    return {
        "inputs": torch.rand(number, 6),
        "targets": torch.tensor(targets),
        "index": torch.arange(number),
        "view": torch.full((number,), -1),
        "mixed": {"targets": torch.tensor(partners), "share": torch.full((number,), share)},
    }


def test_own_and_partners_targets_by_share() -> None:
    given, output = batch([0, 1, 2, 1], [1, 0, 1, 2]), torch.randn(4, 3, requires_grad=True)
    loss = Classification(3).loss(output, given)
    expected = 0.7 * F.cross_entropy(output, given["targets"])
    expected = expected + 0.3 * F.cross_entropy(output, given["mixed"]["targets"])
    torch.testing.assert_close(loss, expected)
    as_probabilities = 0.7 * F.one_hot(given["targets"], 3) + 0.3 * F.one_hot(given["mixed"]["targets"], 3)
    torch.testing.assert_close(loss, F.cross_entropy(output, as_probabilities))


def test_a_share_of_each_sample_counts() -> None:
    given, output = batch([0, 1], [1, 2]), torch.randn(2, 3)
    given["mixed"]["share"] = torch.tensor([1.0, 0.25])
    nll = -output.log_softmax(1)
    expected = (nll[0, 0] + 0.25 * nll[1, 1] + 0.75 * nll[1, 2]) / 2
    torch.testing.assert_close(Classification(3).loss(output, given), expected)


def test_unlabelled_samples_do_not_count() -> None:
    given, output = batch([0, -1, 2, -1], [-1, 0, -1, 2]), torch.randn(4, 3, requires_grad=True)
    loss = Classification(3).loss(output, given)
    own, other = torch.tensor([0, 2]), torch.tensor([1, 3])
    labels = torch.tensor([0, 2])
    expected = 0.7 * F.cross_entropy(output[own], labels) + 0.3 * F.cross_entropy(output[other], labels)
    torch.testing.assert_close(loss, expected)
    nothing = batch([-1, -1], [-1, -1])
    assert float(Classification(3).loss(torch.randn(2, 3), nothing)) == 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_with_their_count_give_the_whole(size: int) -> None:
    task, targets = Classification(3), [0, -1, 2, 1, -1, 0]
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    whole = batch(targets, torch.tensor(targets)[order].tolist())
    output = torch.randn(6, 3)
    parts = torch.arange(6).split(size)
    count = {name: value / len(parts) for name, value in task.counts(whole).items()}
    losses = []
    for rows in parts:
        micro = {"targets": whole["targets"][rows], "inputs": whole["inputs"][rows], "count": count}
        micro["mixed"] = {name: value[rows] for name, value in whole["mixed"].items()}
        losses.append(task.loss(output[rows], micro))
    torch.testing.assert_close(torch.stack(losses).mean(), task.loss(output, whole))


def test_mixed_stays_in_normal_form() -> None:
    given = batch([0, 1], [1, 0])
    assert Classification(3).batch(given)["mixed"] is given["mixed"]
    named = {"a": given["inputs"], "labels": given["targets"], "mixed": given["mixed"]}
    assert set(Classification(3).batch(named)) == {"inputs", "targets", "mixed"}


@pytest.mark.parametrize("task", [MultiLabel(3), Regression(), Tokens()], ids=lambda task: task.kind)
def test_other_tasks_refuse_mixed_samples(task: Any) -> None:
    with pytest.raises(RequestError, match=f"one class a sample; the task is {task.name}"):
        task.batch(batch([0, 1], [1, 0]))


def hard(losses: Any) -> Tensor:
    return next(term for name, term in losses.terms.items() if name.endswith(("hard", "cross_entropy")))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plain(mlp()),
        lambda: KD(mlp(), mlp(seed=1)),
        lambda: PeerMutualKD([mlp(), mlp(seed=1)], kd_weight=0, order="simultaneous"),
    ],
    ids=["plain", "kd", "peer_mutual_kd"],
)
def test_methods_honour_mixed_samples_in_their_supervised_term(make: Any) -> None:
    method, given = make(), batch([0, 1, 2, 1], [1, 0, 1, 2])
    network = method.student if isinstance(method.student, nn.Module) else method.students[0]
    update = method.stages()[0].updates[0].name
    network.eval()
    expected = Classification(3).loss(network(given["inputs"]), given)
    torch.testing.assert_close(hard(method(given, update=update)), expected)


def _semckd() -> SemCKD:
    taps = {"student": ["layer1", "layer2"], "teacher": ["layer2"]}
    return SemCKD(tapped.cnn(3, 4, seed=1), tapped.cnn(2, 3, seed=2), taps=taps, example=tapped.images(4))


def _sskd() -> SSKD:
    taps = {side: ["layer1", "layer2"] for side in ("student", "teacher")}
    joint = {"variant": "joint", "joint_weight": 2.0}
    networks = tapped.cnn(3, 4, seed=1), tapped.cnn(3, 5, seed=2)
    return SSKD(*networks, taps=taps, example=tapped.images(4), **joint)


@pytest.mark.parametrize("make", [_semckd, _sskd])
def test_features_are_those_of_the_mixed_picture_and_labels_count_by_share(make: Any) -> None:
    method, mixed = make(), {**batch([0, 1, 2, 1], [1, 0, 1, 2]), "inputs": tapped.images(4)["inputs"]}
    plain = {name: value for name, value in mixed.items() if name != "mixed"}
    update = method.stages()[-1].updates[0].name
    method.enter(method.stages()[-1])
    method.eval()
    found, without = method(mixed, update=update).terms, method(plain, update=update).terms
    assert found.keys() == without.keys()
    assert len(found) > 1
    for name in found.keys() - {"hard"}:
        torch.testing.assert_close(found[name], without[name])
    torch.testing.assert_close(found["hard"], Classification().loss(method.student(mixed["inputs"]), mixed))
    assert not torch.equal(found["hard"], without["hard"])


def test_the_decoupled_term_refuses_mixed_samples() -> None:
    method = KD(cnn(), cnn(seed=1), variant="decoupled", warmup=0)
    given = {**batch([0, 1], [1, 0]), "inputs": torch.rand(2, 3, 8, 8)}
    with pytest.raises(RequestError, match="reads each sample's own label") as caught:
        method(given)
    assert caught.value.fix is not None
    assert "data.mix" in caught.value.fix
    with pytest.raises(RequestError, match="reads each sample's own label"):
        method.losses(Record(torch.rand(2, 3)), Record(torch.rand(2, 3)), given)
