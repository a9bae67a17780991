"""Peer-mutual KD in the training loop of the engine."""

from __future__ import annotations

import pytest
import torch

from limbeck.engine import Machine, Training, evaluate, fit
from limbeck.errors import Interrupted, RunError
from limbeck.methods.peer_mutual_kd import PeerMutualKD
from tests.engine.tiny import StopAfter, cnn, data, mlp, pictures, same, weights

ORDERS = ("simultaneous", "sequential", "own_batch")


def cohort(order, **settings):
    return PeerMutualKD([cnn(seed=2), cnn(seed=3)], cnn(seed=1), order=order, **settings)


@pytest.mark.parametrize("order", ORDERS)
def test_fit_trains_scores_and_chooses_by_validation(order):
    train, held = data(96), data(64, seed=1)
    method = PeerMutualKD([mlp(seed=2, width=6), mlp(seed=3)], mlp(seed=1, width=16), order=order)
    settings = Training(epochs=24 if order == "own_batch" else 12, batch_size=16)
    result = fit(method, train, held, settings)
    assert set(result.scores) == {"ensemble", "student0", "student1", "teacher"}
    assert all(scores["accuracy"] > 0.75 for scores in result.scores.values())
    terms = [
        f"{name}.{term}"
        for name in ("student0", "student1")
        for term in ("cross_entropy", "teacher", "peers")
    ]
    assert set(result.history[-1]["terms"]) == {"teacher.cross_entropy", *terms}
    best = max(result.history, key=lambda entry: entry["scores"]["ensemble"]["accuracy"])
    assert result.chosen_scores["ensemble"]["accuracy"] == best["scores"]["ensemble"]["accuracy"]
    method = result.load("chosen")
    assert method.scores == result.chosen_scores
    assert evaluate(method.networks()["ensemble"], held) == result.chosen_scores["ensemble"]
    scores = [result.chosen_scores[f"student{m}"]["accuracy"] for m in (0, 1)]
    assert evaluate(method.deployable(), held)["accuracy"] == max(scores)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stopped", [2, 5])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, order, stopped):
    settings = Training(epochs=3, batch_size=4, learning_rate=0.02)

    def run(folder, **options):
        method = cohort(order, kd_warmup=2)
        return fit(method, pictures(48), pictures(12, seed=1), settings, seed=3, folder=folder, **options)

    whole = run(tmp_path / "whole")
    listener = StopAfter(stopped)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", listener=listener, interruption=listener.interruption)
    again = run(tmp_path / "cut", resume=True)
    assert same(weights(whole.method), weights(again.method))
    assert [entry["terms"] for entry in whole.history] == [entry["terms"] for entry in again.history]


def test_micro_batches_equal_one_batch():
    def trained(limit):
        method = PeerMutualKD([mlp(seed=2).double(), mlp(seed=3).double()], mlp(seed=1).double())
        train = data(30)
        train._inputs["inputs"] = train._inputs["inputs"].double()
        train._targets[::3] = -1
        settings = Training(epochs=2, batch_size=10, schedule="none", optimizer_options={})
        fit(method, train, settings=settings, machine=Machine(micro_batch=limit))
        return weights(method)

    one, cut = trained(None), trained(4)
    assert all(torch.allclose(one[name], cut[name], atol=1e-12) for name in one)


def test_groups_carry_the_names_of_the_networks_in_every_order():
    for order in ORDERS:
        method = cohort(order)
        before = weights(method.students[1])
        groups = {"student1": {"learning_rate": 1e-30, "optimizer_options": {"weight_decay": 0.0}}}
        fit(method, pictures(), settings=Training(epochs=1, batch_size=4, groups=groups))
        for name, parameter in method.students[1].named_parameters():
            torch.testing.assert_close(parameter.detach(), before[name], atol=1e-20, rtol=0)


@pytest.mark.parametrize("order", ["simultaneous", "sequential"])
def test_a_loss_that_is_not_finite_names_network_and_term(order):
    method = cohort(order)
    with torch.no_grad():
        next(method.students[1].parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match=r"student\d\.(peers|cross_entropy) = nan"):
        fit(method, pictures(), settings=Training(epochs=1, batch_size=8))
