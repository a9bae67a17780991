"""The end of a run: what is scored on the data of the closing table, and how often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limbeck._run import finish
from limbeck._run.phases import Trained
from limbeck.engine import Training, evaluate, fit
from tests.engine.tiny import Supervised, data, mlp

EPOCHS = 4


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that were scored."""
    found: list[Any] = []
    real = finish.statistics

    def counted(network: Any, *rest: Any) -> Any:
        found.append(network)
        return real(network, *rest)

    monkeypatch.setattr(finish, "statistics", counted)
    return found


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("unsteady", [True, False])
def test_a_network_is_scored_once_where_the_last_epoch_is_the_chosen_one(
    reads: list[Any], validated: bool, unsteady: bool
) -> None:
    held, test = data(16, seed=3) if validated else None, data(64, seed=5)
    method = Supervised(mlp())
    made = fit(method, data(), held, Training(epochs=EPOCHS, batch_size=16, learning_rate=0.01), seed=1)
    made.weights["chosen"] = {name: value.clone() for name, value in made.weights["last"].items()}
    made.chosen_epoch, made.chosen_scores = EPOCHS, made.scores
    if unsteady:
        made.chosen_epoch = 1
        for value in made.weights["last"].values():
            value.copy_(torch.randn(value.shape))
    expected = {}
    for which in ("last", "chosen"):
        expected[which] = evaluate(made.load(which).deployable(), test, method.task)  # type: ignore[arg-type]
    machine, splits = SimpleNamespace(device="cpu"), SimpleNamespace(task=method.task)
    session: Any = SimpleNamespace(machine=machine, splits=splits)
    final = finish._of_a_phase(session, Trained(method, made, made.chosen_scores), test)
    assert len(reads) == (2 if unsteady else 1)
    assert final.about["scores"] == expected["chosen"]
    assert final.about["last"]["scores"] == expected["last"]
    assert (final.about["scores"] != final.about["last"]["scores"]) == unsteady
    assert (final.about["chosen_epoch"], final.about["epochs"]) == (made.chosen_epoch, EPOCHS)
    right = (final.answers["predicted"] == test.targets()).double().mean()
    assert float(right) == pytest.approx(expected["chosen"]["accuracy"])


def test_a_network_that_was_not_trained_here_has_no_last_epoch(reads: list[Any]) -> None:
    method = Supervised(mlp())
    machine, splits = SimpleNamespace(device="cpu"), SimpleNamespace(task=method.task)
    session: Any = SimpleNamespace(machine=machine, splits=splits)
    final = finish._of_a_phase(session, Trained(method, None, {}), data(16))
    assert len(reads) == 1
    assert {"last", "epochs"} & set(final.about) == set()
