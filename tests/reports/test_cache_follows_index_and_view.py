"""C1: haitongli/knowledge-distillation-pytorch#23, #9, #17.

Teacher outputs were listed once before training, while the loader shuffled and flipped: the answer of one
picture taught another. Stored answers belong to a sample and a view, whatever the order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck import CachedTeacher, Teacher, fit
from limbeck.data.dataset import Dataset
from limbeck.data.loader import Loader
from limbeck.data.views import Views
from limbeck.engine import Machine, Training
from limbeck.methods import KD
from tests.cached import teacher_network
from tests.engine.tiny import cnn, pictures


def flipped() -> Dataset:
    return pictures(48).augment(Views(0, ["flip"]))


def trained(teacher: Any, *, views: int, workers: int, seed: int) -> list[Any]:
    method = KD(cnn(), teacher)
    settings = Training(epochs=2, batch_size=16)
    machine = Machine(device="cpu", workers=workers)
    return fit(method, flipped(), settings=settings, views=views, seed=seed, machine=machine).history


@pytest.mark.parametrize(("views", "workers"), [(0, 0), (1, 0), (2, 0), (5, 0), (2, 2)])
def test_losses_with_stored_answers_are_the_live_ones(tmp_path, views, workers):
    for seed in (0, 1):  # two orders
        live = trained(Teacher(teacher_network()), views=views, workers=0, seed=seed)
        stored = CachedTeacher(teacher_network(), tmp_path / "c", flipped())
        cached = trained(stored, views=views, workers=workers, seed=seed)
        assert [each["terms"] for each in cached] == [each["terms"] for each in live]


def agreement(teacher: Any) -> float:
    hits = 0
    for epoch in range(2):
        for (batch,) in Loader(flipped(), 16, seed=3, epoch=epoch, view=epoch):
            hits += int((teacher(batch).output.argmax(1) == batch["targets"]).sum())
    return hits / 96


def test_the_teacher_agrees_with_the_labels_as_often_as_live(tmp_path):
    stored = CachedTeacher(teacher_network(), tmp_path / "c", flipped())
    assert agreement(stored) == agreement(Teacher(teacher_network()))


def test_eight_pictures_in_any_order_keep_their_own_answers(tmp_path):
    data = pictures(8).augment(Views(0, ["flip"]))
    stored, live = CachedTeacher(teacher_network(), tmp_path / "c", data), Teacher(teacher_network())
    whole = live(data.batch(torch.arange(8), 1)).output
    for _ in range(5):
        order = torch.randperm(8)
        assert torch.allclose(stored(data.batch(order, 1)).output, whole[order], atol=1e-6)
