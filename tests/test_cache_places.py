"""Several views of a sample in one batch: each has a stored answer of its own, in runs too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import CachedTeacher, Losses, Record, Stage, Teacher, Update, distill, fit, verify_cache
from limbeck._run.screen import silent
from limbeck.data.dataset import Dataset
from limbeck.data.loader import Loader
from limbeck.data.views import Views, view_number
from limbeck.engine import Machine, Training
from limbeck.losses import softened_divergence
from tests.cached import small_shards, teacher_network
from tests.engine.tiny import Supervised, cnn, pictures, same, weights

PLACES = 4


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)


def turned(names: Sequence[str] = ("crop", "flip", "rotate")) -> Dataset:
    return pictures(32).augment(Views(0, list(names)))


class Turning(Supervised):
    """Learns the teacher's answer to each sample in four places; keeps what the teacher said."""

    def stages(self) -> list[Stage]:
        return [Stage("train", [Update("student", {"student": self.student})], views=PLACES)]

    def losses(self, student: Record, teacher: Record, batch: Any) -> Losses:
        self.__dict__.setdefault("seen", []).append((batch, teacher.output))
        soft = softened_divergence(student.output, teacher.output, 2.0)
        return Losses({"soft": soft}, {"soft": 1.0})


@pytest.mark.parametrize("view", [0, 2])
def test_each_row_has_the_answer_to_its_own_turn(tmp_path: Path, view: int) -> None:
    data, live = turned(), Teacher(teacher_network())
    stored = CachedTeacher(teacher_network(), tmp_path / "c", data)
    for (batch,) in Loader(data, 8, seed=0, view=view, places=PLACES):
        assert torch.equal(stored(batch).output, live(batch).output)
    answers = stored(data.batch([5] * PLACES, view_number(view, torch.arange(PLACES)))).output
    assert len({tuple(row) for row in answers.tolist()}) == PLACES
    assert stored.missing([view_number(view, place) for place in range(PLACES)]) == 0


def test_answers_written_ahead_are_those_that_a_batch_asks_for(tmp_path: Path) -> None:
    data = turned()
    numbers = [view_number(view, place) for view in (1, 2) for place in range(PLACES)]
    CachedTeacher(teacher_network(), tmp_path / "c", data).fill(numbers, batch_size=8)
    checked = verify_cache(tmp_path / "c", screen=silent())
    assert checked.views == dict.fromkeys(numbers, 32)
    assert not checked.damaged
    stored = CachedTeacher(teacher_network(), tmp_path / "c", data, write=False)
    ((batch,),) = Loader(data, 32, seed=0, view=2, places=PLACES)
    assert torch.equal(stored(batch).output, Teacher(teacher_network())(batch).output)


@pytest.mark.parametrize("micro_batch", [None, 16])
def test_a_training_with_stored_answers_is_the_live_one(tmp_path: Path, micro_batch: int | None) -> None:
    settings, trained = Training(epochs=3, batch_size=8), []
    machine = Machine(device="cpu", micro_batch=micro_batch)
    for teacher in (
        Teacher(teacher_network()),
        CachedTeacher(teacher_network(), tmp_path / "c", turned()),
    ):
        method = Turning(cnn(), teacher)
        fit(method, turned(), settings=settings, views=2, machine=machine)
        trained.append(method)
    assert same(weights(trained[0]), weights(trained[1]))
    for (batch, output), (_, other) in zip(trained[0].seen, trained[1].seen, strict=True):
        assert torch.equal(output, other)
        assert torch.equal(output, teacher_network()(batch["inputs"]))


OWN = """
from limbeck import Card, Losses, Method, Stage, Update
from limbeck.losses import softened_divergence

class Turning(Method):
    card = Card(slug="turning", title="t", paper="none", equations=("L = KL",), tasks=("classes",), needs=(),
                teacher="outputs", deployed="the student", hyperparameters={})

    def __init__(self, student, teacher=None, *, task=None):
        super().__init__(student, teacher, task=task)

    def stages(self):
        return [Stage("train", [Update("student", {"student": self.student})], views=2)]

    def losses(self, student, teacher, batch):
        return Losses({"soft": softened_divergence(student.output, teacher.output, 2.0)}, {"soft": 1.0})
"""

RECIPE = """name = "tiny"
[data]
source = "fashion-small"
limit = 64
augment = ["crop", "rotate"]
views = 2
[teacher]
model = "cnn-tiny"
train = { epochs = 1 }
accept_chance = true
[student]
model = "cnn-tiny"
options = { widths = [4, 4, 8, 8] }
[method]
name = "own_of_test_cache_places:Turning"
[train]
epochs = 4
batch_size = 16
[export]
to = []
[machine]
threads = 1
precision = "fp32"
"""


def test_a_run_stores_every_place_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_of_test_cache_places.py").write_text(OWN, encoding="utf-8")
    Path("mine.toml").write_text(RECIPE, encoding="utf-8")
    done = distill("mine.toml", screen=silent())
    assert done.figures["cache"]["written"] == 2 * 2 * 64
    (folder,) = Path("runs/cache").iterdir()
    numbers = [view_number(view, place) for view in (1, 2) for place in (0, 1)]
    assert verify_cache(folder, screen=silent()).views == dict.fromkeys(numbers, 64)
    again = distill("mine.toml", screen=silent())
    assert again.figures["cache"]["written"] == 0
