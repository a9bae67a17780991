"""Several views of a sample in a batch, and mixed batches, through the whole loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck import Losses, Stage, Update, fit
from limbeck.data.dataset import Dataset
from limbeck.data.mixing import Mixing
from limbeck.data.views import Views, split_view
from limbeck.engine import Listener, Machine, Training
from limbeck.errors import RequestError
from limbeck.methods import Plain
from tests.engine.test_resume import run
from tests.engine.tiny import Supervised, pictures, same, weights
from tests.processes import run_processes


class Turned(Supervised):
    """Sees every sample in four places; keeps what it saw."""

    def stages(self) -> list[Stage]:
        return [Stage("train", [Update("student", {"student": self.student})], views=4)]

    def forward(self, batch: Any, update: str = "student") -> Losses:
        self.__dict__.setdefault("seen", []).append({**batch})
        return super().forward(batch, update)


class Ends(Listener):
    """Keeps the samples of every step."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def on_step(self, event: Any) -> None:
        self.samples.append(event.samples)


def flat() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 3))


def turned() -> Dataset:
    return pictures(24).augment(Views(0, ["crop", "flip", "rotate"]))


@pytest.mark.parametrize("micro_batch", [None, 16, 4])
def test_a_stage_with_several_views_sees_them_together(micro_batch: int | None) -> None:
    method, listener, data = Turned(flat()), Ends(), turned()
    machine = Machine(device="cpu", micro_batch=micro_batch)
    made = fit(
        method,
        data,
        settings=Training(epochs=2, batch_size=8),
        views=3,
        listener=listener,
        machine=machine,
    )
    rows = [len(batch["index"]) for batch in method.seen]
    assert max(rows) == (micro_batch or 32)
    assert listener.samples == [8] * 6  # samples, not rows
    assert [entry["samples"] for entry in made.history] == [24, 24]
    for batch in method.seen:
        views, places = split_view(batch["view"])
        assert places.tolist() == [0, 1, 2, 3] * (len(places) // 4)
        assert torch.equal(batch["index"], batch["index"][::4].repeat_interleave(4))
        assert set(views.tolist()) <= {1, 2}
        assert torch.equal(batch["inputs"], data.batch(batch["index"], batch["view"])["inputs"])
    whole = Turned(flat())
    fit(whole, data, settings=Training(epochs=2, batch_size=8), views=3, machine=Machine(device="cpu"))
    for name, value in weights(method).items():
        torch.testing.assert_close(value, weights(whole)[name])


def mixed(kind: str = "mixup") -> Dataset:
    return pictures(24).augment(Views(0, ["crop", "flip"])).mix(Mixing(kind, 1.0))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_training_sees_mixed_batches_and_micro_batches_see_the_same(kind: str) -> None:
    settings = Training(epochs=2, batch_size=8)
    trained = []
    for machine in (Machine(device="cpu"), Machine(device="cpu", micro_batch=3), Machine(workers=1)):
        method = Plain(flat())
        made = fit(method, mixed(kind), pictures(9), settings, views="fresh", machine=machine)
        trained.append((made.history, weights(method)))
    (history, alone), (_, cut), (read_ahead, ahead) = trained
    assert [entry["terms"] for entry in history] == [entry["terms"] for entry in read_ahead]
    assert same(alone, ahead)
    for name, value in alone.items():
        torch.testing.assert_close(value, cut[name])
    plain = Plain(flat())
    fit(plain, pictures(24).augment(Views(0, ["crop", "flip"])), settings=settings, views="fresh")
    assert not same(weights(plain), alone)


def test_a_resume_within_an_epoch_of_mixed_batches_is_exact(tmp_path) -> None:
    settings = Training(epochs=2, batch_size=4)
    whole, *_ = run(lambda: Plain(flat()), mixed(), settings, tmp_path / "whole")
    run(lambda: Plain(flat()), mixed(), settings, tmp_path / "cut", after=3)
    rest, *_ = run(lambda: Plain(flat()), mixed(), settings, tmp_path / "cut", resume=True)
    assert same(weights(rest), weights(whole))


def test_several_views_and_mixed_samples_exclude_each_other() -> None:
    method = Turned(flat())
    before = weights(method)
    with pytest.raises(RequestError, match=r"4 views of each sample in a batch, and data\.mix"):
        fit(method, mixed(), settings=Training(epochs=1, batch_size=8))
    assert same(before, weights(method))


SCRIPT = """
import sys
import torch
from limbeck.engine import Machine, fit
from tests.engine.test_views import SETTINGS, Turned, flat, half_labelled, turned
from tests.engine.tiny import Supervised
torch.set_num_threads(1)
machine = Machine(device="cpu")
made = [
    fit(Supervised(flat()), half_labelled(), settings=SETTINGS, views="fresh", machine=machine).method,
    fit(Turned(flat()), turned(), settings=SETTINGS, views=3, machine=machine).method,
]
torch.save([method.state_dict() for method in made], f"{sys.argv[1]}/{torch.distributed.get_rank()}.pt")
torch.distributed.destroy_process_group()
"""

SETTINGS = Training(epochs=2, batch_size=8)


def half_labelled() -> Dataset:
    targets = torch.arange(24) % 3
    targets[3:14] = -1
    return mixed().with_targets(targets)


def test_two_processes_equal_one(tmp_path) -> None:
    run_processes(SCRIPT, tmp_path)
    alone = [
        fit(Supervised(flat()), half_labelled(), settings=SETTINGS, views="fresh").method,
        fit(Turned(flat()), turned(), settings=SETTINGS, views=3).method,
    ]
    for rank in (0, 1):
        for method, stored in zip(alone, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            for name, value in method.state_dict().items():
                torch.testing.assert_close(stored[name], value)
