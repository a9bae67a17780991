"""What a training says that it cost."""

from __future__ import annotations

import contextlib
import time

import pytest
from torch import nn

from limbeck import Losses, Method
from limbeck._clock import PARTS
from limbeck.engine import Machine, Training, fit
from limbeck.errors import Interrupted
from limbeck.methods.kd import KD
from limbeck.methods.peer_mutual_kd import PeerMutualKD
from limbeck.methods.semckd import SemCKD
from tests.engine.tiny import CARD, Staged, StopAfter, Supervised, cnn, data, mlp, pictures

SETTINGS = Training(epochs=3, batch_size=8, learning_rate=0.05)


class Pause(nn.Module):
    """Takes its time and changes nothing."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, inputs):
        time.sleep(self.seconds)
        return inputs


def numel(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("limit", [None, 3])
def test_the_parts_of_a_step_belong_to_who_took_them(limit):
    teacher, student = nn.Sequential(Pause(0.004), mlp(seed=1)), nn.Sequential(Pause(0.002), mlp())
    result = fit(KD(student, teacher), data(32), None, SETTINGS, machine=Machine(micro_batch=limit))
    cost, times = result.cost, 1 if limit is None else 3
    assert cost.steps == 3 * 4 - 1  # the first one warms up
    assert tuple(cost.seconds) == PARTS
    assert cost.seconds["teacher"] >= 0.004 * times
    assert cost.seconds["student"] >= 0.002 * times
    assert all(cost.seconds[name] > 0 for name in PARTS)
    assert cost.step_seconds * cost.steps <= result.seconds
    assert cost.peak_memory_bytes is None or cost.peak_memory_bytes > 1e7
    assert cost.stored()["seconds"].keys() == cost.seconds.keys()


def test_every_update_of_a_step_counts():
    cohort = [nn.Sequential(Pause(0.002), mlp(seed=n)) for n in (1, 2)]
    method = PeerMutualKD(cohort, mlp(seed=3), order="simultaneous")
    assert fit(method, data(24), None, SETTINGS).cost.seconds["student"] >= 0.004


def test_steps_of_earlier_sessions_count(tmp_path):
    stop = StopAfter(5)

    def train(resume, **more):
        return fit(Supervised(mlp()), data(32), None, SETTINGS, folder=tmp_path, resume=resume, **more)

    with contextlib.suppress(Interrupted):
        train(False, listener=stop, interruption=stop.interruption)
    resumed = train(True).cost
    assert resumed.steps == 12 - 2  # each session warms up
    assert train(True).cost.seconds == pytest.approx(resumed.seconds)  # finished: read back


def test_too_short_a_training_has_no_figures():
    cost = fit(Supervised(mlp()), data(8), None, Training(epochs=1, batch_size=8)).cost
    assert (cost.steps, cost.seconds, cost.step_seconds) == (0, {}, 0)


def test_parameters_that_only_training_needs():
    batch = pictures(8).batch(range(8))
    semckd = SemCKD(
        cnn(), cnn(seed=1), taps={"student": ["2"], "teacher": ["2", "4"]}, example=batch, attention_batch=8
    )
    kept = numel(semckd.student)
    cost = fit(semckd, pictures(16), None, Training(epochs=1, batch_size=8)).cost
    assert (cost.kept_parameters, cost.extra_parameters) == (kept, numel(semckd) - kept)
    cost = fit(KD(mlp(), mlp(seed=1)), data(16), None, SETTINGS).cost
    assert (cost.kept_parameters, cost.extra_parameters) == (numel(mlp()), 0)
    cost = fit(Staged(mlp()), data(16), None, SETTINGS).cost
    assert (cost.kept_parameters, cost.extra_parameters) == (numel(mlp()), 0)
    cohort = PeerMutualKD([mlp(seed=1), mlp(seed=2)], mlp(seed=3, width=16))
    cost = fit(cohort, data(16), None, SETTINGS).cost
    assert cost.extra_parameters == numel(mlp()) + numel(mlp(width=16))


class Two(Method):
    """Two networks, of which none is named as the one to keep."""

    card = CARD

    def __init__(self):
        super().__init__(None)
        self.one, self.two = mlp(seed=1), mlp(seed=2)

    def forward(self, batch, update="student"):
        batch = self.task.batch(batch)
        outputs = {name: self.task.call(network, batch) for name, network in self.named_children()}
        terms = {name: self.task.loss(output, batch) for name, output in outputs.items()}
        return Losses(terms, dict.fromkeys(terms, 1.0))


def test_a_method_that_keeps_no_single_network_still_trains():
    cost = fit(Two(), data(16), None, SETTINGS).cost
    assert cost.steps
    assert (cost.kept_parameters, cost.extra_parameters) == (None, None)
