"""Two real processes against one."""

from __future__ import annotations

import pytest
import torch

from limbeck.data.dataset import ArrayDataset
from limbeck.engine import Training, evaluate, fit
from limbeck.task import Classification
from tests.engine.tiny import Staged, Supervised, cnn, data, mlp, pictures, weights
from tests.processes import run_processes

SCRIPT = """
import sys
import warnings
import torch
from limbeck.engine import Machine, fit
from limbeck.errors import RunError
from tests.engine.test_processes import SETTINGS, half_labelled
from tests.engine.tiny import Staged, Supervised, cnn, data, mlp, pictures
torch.set_num_threads(1)
warnings.simplefilter("error", FutureWarning)  # accelerate gives one
folder, machine = sys.argv[1], Machine(device="cpu")
results = {
    "rows": fit(Supervised(mlp().double()), half_labelled(), data(21, seed=1), SETTINGS, machine=machine),
    "staged": fit(Staged(mlp()), data(30), data(21, seed=1), SETTINGS, machine=machine),
    "batch statistics": fit(Supervised(cnn()), pictures(26), pictures(13, seed=1), SETTINGS, machine=machine),
}
rank = torch.distributed.get_rank()
kept = {
    name: {"weights": r.method.state_dict(), "history": r.history, "cost": r.cost.stored()}
    for name, r in results.items()
}
torch.save(kept, f"{folder}/{rank}.pt")
bad = data(16)
bad._inputs["inputs"][3] = float("inf")
try:
    fit(Supervised(mlp()), bad, settings=SETTINGS, machine=machine)
except RunError as error:
    print(error.message)
torch.distributed.destroy_process_group()
"""

SETTINGS = Training(epochs=4, batch_size=8, learning_rate=0.1)


def half_labelled() -> ArrayDataset:
    """Rows of which some have no label, unevenly."""
    train = data(30)
    train._inputs["inputs"] = train._inputs["inputs"].double()
    train._targets[5:17] = -1
    return train


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes came to, each by scenario, and what they printed."""
    folder = tmp_path_factory.mktemp("processes")
    said = run_processes(SCRIPT, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)], said


def test_two_processes_equal_one_without_batch_statistics(both):
    first, second = (result["rows"] for result in both[0])
    alone = fit(Supervised(mlp().double()), half_labelled(), data(21, seed=1), SETTINGS)
    for name, value in alone.method.state_dict().items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-10, atol=1e-12)
        assert torch.equal(first["weights"][name], second["weights"][name])
    for theirs, mine in zip(first["history"], alone.history, strict=True):
        assert theirs["scores"]["student"] == pytest.approx(mine["scores"]["student"], rel=1e-10)
        assert theirs["terms"]["hard"] == pytest.approx(mine["terms"]["hard"], rel=1e-10)
        assert theirs["samples"] == mine["samples"] == 30


def test_two_processes_equal_one_through_stages_and_updates(both):
    first, second = (result["staged"] for result in both[0])
    alone = fit(Staged(mlp()), data(30), data(21, seed=1), SETTINGS)
    assert first["cost"]["steps"] == second["cost"]["steps"] > 0
    for name, value in weights(alone.method).items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-6, atol=1e-6)
        assert torch.equal(first["weights"][name], second["weights"][name])


def test_batch_statistics_are_averaged_finite_and_equal_on_both(both):
    first, second = (result["batch statistics"] for result in both[0])
    for name, value in first["weights"].items():
        assert bool(value.isfinite().all())
        assert torch.equal(value, second["weights"][name]), name
    assert first["history"][-1]["scores"] == second["history"][-1]["scores"]


def test_a_loss_that_is_not_finite_stops_both(both):
    assert any("the loss is not finite: hard" in text for text in both[1])
    assert all("not finite" in text for text in both[1])


def test_evaluation_counts_each_sample_once():
    network, held = cnn(), pictures(21, seed=4)
    score = evaluate(network, held, Classification(), batch_size=4)
    right = (network.eval()(held.batch(range(21))["inputs"]).argmax(1) == held.targets()).sum()
    assert score["accuracy"] == int(right) / 21
