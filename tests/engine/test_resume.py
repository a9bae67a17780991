"""A resumed run equals the uninterrupted one, whenever it was stopped."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from limbeck.engine import Training, checkpoint, fit
from limbeck.engine.interruption import Interruption
from limbeck.engine.listener import Listener
from limbeck.errors import Interrupted, RequestError
from tests.engine.test_optimizers import NEEDS
from tests.engine.tiny import Staged, Supervised, cnn, data, mlp, pictures, same, weights


class Stop(Listener):
    """Notes rates and samples of every step and asks to stop after some steps."""

    wants_index = True

    def __init__(self, after=None):
        self.after, self.steps = after, []
        self.interruption = Interruption()

    def on_step(self, event):
        self.steps.append((dict(event.learning_rates), event.index))
        if len(self.steps) == self.after:
            self.interruption.signal_number = signal.SIGINT


def run(make, train, settings, folder, *, after=None, resume=False, machine=None):
    listener = Stop(after)
    method, result = make(), None
    with contextlib.suppress(Interrupted):
        result = fit(
            method,
            train,
            train,
            settings,
            folder=folder,
            resume=resume,
            listener=listener,
            machine=machine,
            interruption=listener.interruption,
        )
    return method, listener.steps, result is None, result


def equal_after_stop(make, train, settings, folder, after, machine=None):
    whole, steps, _, result = run(make, train, settings, folder / "whole", machine=machine)
    _, first, stopped, _ = run(make, train, settings, folder / "cut", after=after, machine=machine)
    assert stopped
    resumed, rest, _, again = run(make, train, settings, folder / "cut", resume=True, machine=machine)
    assert first + rest == steps
    assert same(weights(resumed), weights(whole))
    assert [e["terms"] for e in again.history] == [e["terms"] for e in result.history]
    assert [e["scores"] for e in again.history] == [e["scores"] for e in result.history]
    assert again.chosen_epoch == result.chosen_epoch
    assert all(torch.equal(again.weights["chosen"][k], v) for k, v in result.weights["chosen"].items())


@pytest.mark.parametrize("after", [1, 3, 4, 5, 8, 11])
def test_every_moment_of_a_run_with_dropout_and_batch_statistics(tmp_path, after):
    settings = Training(epochs=3, batch_size=6)
    equal_after_stop(lambda: Supervised(cnn()), pictures(24), settings, tmp_path, after)


@pytest.mark.parametrize("after", [2, 4, 6, 9, 13, 17])
def test_every_moment_of_stages_with_several_updates(tmp_path, after):
    settings = Training(epochs=6, batch_size=8, optimizer="AdamW", optimizer_options={}, learning_rate=0.01)
    equal_after_stop(lambda: Staged(mlp(dropout=0.3)), data(24), settings, tmp_path, after)


@pytest.mark.parametrize(
    "name",
    [
        "none",
        "CosineAnnealingLR",
        "OneCycleLR",
        "MultiStepLR",
        "StepLR",
        "ReduceLROnPlateau",
        "CyclicLR",
        "CosineAnnealingWarmRestarts",
        "LinearLR",
        "PolynomialLR",
        "ExponentialLR",
    ],
)
def test_learning_rates_go_on_under_every_schedule(tmp_path, name):
    options = NEEDS.get(name, {})
    settings = Training(epochs=4, batch_size=8, schedule=name, schedule_options=options)
    equal_after_stop(lambda: Supervised(mlp()), data(24), settings, tmp_path, after=7)


def test_a_momentum_takes_the_memory_format_of_its_parameter(tmp_path):
    """A contiguous momentum under a channels_last parameter makes a fused optimizer silently wrong."""

    def make():
        return Supervised(cnn().to(memory_format=torch.channels_last))

    options = {"momentum": 0.9, "fused": True}
    settings = Training(epochs=3, batch_size=6, optimizer_options=options)
    equal_after_stop(make, pictures(24), settings, tmp_path, after=5)


def test_a_finished_run_is_read_back_and_trains_no_more(tmp_path):
    settings = Training(epochs=2, batch_size=8)
    whole, _, _, result = run(lambda: Supervised(mlp()), data(), settings, tmp_path)
    again, more, _, same_result = run(
        lambda: Supervised(mlp(seed=9)), data(), settings, tmp_path, resume=True
    )
    assert more == []
    assert same(weights(again), weights(whole))
    assert same_result.history == result.history


def test_resume_without_a_checkpoint_starts(tmp_path):
    settings = Training(epochs=1, batch_size=8)
    one, *_ = run(lambda: Supervised(mlp()), data(), settings, tmp_path / "a")
    two, *_ = run(lambda: Supervised(mlp()), data(), settings, tmp_path / "b", resume=True)
    assert same(weights(one), weights(two))


def test_a_kill_between_the_two_checkpoints_of_an_epoch_does_no_harm(tmp_path):
    """The chosen weights of the next epoch were written, the state that names them was not."""
    settings = Training(epochs=4, batch_size=8)
    whole, *_ = run(lambda: Supervised(mlp()), data(), settings, tmp_path / "whole")
    cut = tmp_path / "cut"
    run(lambda: Supervised(mlp()), data(), settings, cut, after=5)
    written = int(checkpoint.newest(cut, "last").name.removeprefix("last-"))
    wrong = {
        name: value * 0 + 7 for name, value in checkpoint.read(checkpoint.newest(cut, "chosen"))[0].items()
    }
    for number in (written + 1, written + 2):
        checkpoint.write(cut, f"chosen-{number:08d}", wrong, {})
    resumed, _, _, result = run(lambda: Supervised(mlp()), data(), settings, cut, resume=True)
    assert same(weights(resumed), weights(whole))
    assert not any(bool((value == 7).all()) for value in result.weights["chosen"].values())
    assert len(list(cut.glob("chosen-*"))) == 1


def test_of_a_damaged_checkpoint_the_one_before_is_offered(tmp_path):
    """A kill came after the newest was written and before the one before was removed."""
    settings = Training(epochs=4, batch_size=8)
    run(lambda: Supervised(mlp()), data(), settings, tmp_path, after=5)
    older = checkpoint.newest(tmp_path, "last")
    number = int(older.name.removeprefix("last-")) + 1
    newer = checkpoint.write(tmp_path, f"last-{number:08d}", *checkpoint.read(older))
    (newer / "state.json").write_text("{}")
    with pytest.raises(RequestError, match=r"state\.json is damaged") as caught:
        run(lambda: Supervised(mlp()), data(), settings, tmp_path, resume=True)
    assert caught.value.fix == f"remove {newer}: --resume then goes on from {older.name}"
    shutil.rmtree(newer)
    run(lambda: Supervised(mlp()), data(), settings, tmp_path, resume=True)


def test_a_signal_stops_with_its_exit_code(tmp_path):
    interruption = Interruption()
    interruption.signal_number = signal.SIGTERM
    with pytest.raises(Interrupted, match="everything is saved") as caught:
        fit(Supervised(mlp()), data(), folder=tmp_path, interruption=interruption)
    assert caught.value.exit_code == 143
    assert checkpoint.newest(tmp_path, "last")


def test_a_checkpoint_of_another_network_seed_or_a_damaged_one_is_refused(tmp_path):
    settings = Training(epochs=1, batch_size=8)
    run(lambda: Supervised(mlp()), data(), settings, tmp_path)
    with pytest.raises(RequestError, match="another network"):
        fit(Supervised(mlp(width=9)), data(), settings=settings, folder=tmp_path, resume=True)
    with pytest.raises(RequestError, match="seed 0, not 1"):
        fit(Supervised(mlp()), data(), settings=settings, folder=tmp_path, resume=True, seed=1)
    path = checkpoint.newest(tmp_path, "last") / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"tensors\.safetensors is damaged"):
        fit(Supervised(mlp()), data(), settings=settings, folder=tmp_path, resume=True)


SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from limbeck._contract.tiny import example_for
from limbeck.contract import make
from limbeck.engine import Training, fit
from limbeck.methods import resolve
name, folder, out = sys.argv[1:]
method = make(resolve(name), statistics=True)
example = example_for(method.card, statistics=True)
settings = Training(epochs=24, batch_size=4, learning_rate=0.01, checkpoint_seconds=0.02)
print("ready", flush=True)
fit(method, example.data(48), example.data(16, seed=1), settings, folder=folder, resume=True)
torch.save(method.state_dict(), out)
"""


def process(name, folder, kill_after=None):
    """Runs the script, from its "ready" on so many seconds at most: whether it was killed, its time."""
    command = [sys.executable, "-c", SCRIPT, name, str(folder), f"{folder}.pt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "ready\n"
        begun = time.monotonic()
        try:
            assert running.wait(timeout=kill_after) == 0
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            return True, 0.0
        return False, time.monotonic() - begun


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["kd", "sskd", "peer_mutual_kd"])
def test_killed_processes_go_on_to_the_same_bits(tmp_path, name):
    """SIGKILL at three random moments: within epochs, at the stage switch, between peers."""
    _, seconds = process(name, tmp_path / "whole")
    draw = random.Random(time.time_ns())
    kills = [process(name, tmp_path / "cut", draw.uniform(0.05, 0.3) * seconds)[0] for _ in range(3)]
    process(name, tmp_path / "cut")
    assert any(kills)  # a machine that got faster meanwhile may finish before the later ones
    assert same(torch.load(tmp_path / "whole.pt"), torch.load(tmp_path / "cut.pt"))
