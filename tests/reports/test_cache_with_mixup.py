"""C4: facebookresearch/deit#168.

Mixup with a teacher: its answer to a mixed picture is not the mix of its answers to the two. The teacher sees
what the student sees; a cache, which has no answer to that, is refused, or left out and the plan says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import CachedTeacher, Teacher, distill, fit, write_cache
from limbeck._run.screen import silent
from limbeck.data.dataset import Dataset
from limbeck.data.loader import Loader
from limbeck.data.mixing import Mixing
from limbeck.data.views import Views
from limbeck.engine import Machine, Training
from limbeck.errors import RequestError
from limbeck.methods import KD
from limbeck.record import Record
from tests.cached import teacher_network
from tests.engine.tiny import cnn, pictures

KINDS = ["mixup", "cutmix"]


def mixed(kind: str) -> Dataset:
    return pictures(48).augment(Views(0, ["crop", "flip"])).mix(Mixing(kind, 1.0))


class Kept(Teacher):
    """A live teacher that keeps what it was asked and what it said."""

    def __call__(self, batch: Any, *, output: bool = True) -> Record:
        record = super().__call__(batch, output=output)
        self.__dict__.setdefault("asked", []).append((batch, record.output))
        return record


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_to_a_mixed_picture_is_not_the_mix_of_two_answers(kind: str) -> None:
    data, teacher = mixed(kind), Teacher(teacher_network())
    ((batch,),) = Loader(data, 48, seed=0, view=1, mix=True)
    # Partners have the same places in the order of the batch, whoever is mixed with whom.
    ((plain,),) = Loader(data, 48, seed=0, view=1)
    assert torch.equal(batch["index"], plain["index"])
    partners = Mixing(kind, 1.0).partners(48, 0, 0, 0, 0)
    assert torch.equal(batch["mixed"]["targets"], plain["targets"][partners])
    share = batch["mixed"]["share"][:, None]
    apart = teacher(plain).output
    of_outputs = share * apart + (1 - share) * apart[partners]
    assert (teacher(batch).output - of_outputs).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_sees_the_inputs_of_the_student(kind: str) -> None:
    teacher = Kept(teacher_network())
    method = KD(cnn(), teacher)
    fit(method, mixed(kind), settings=Training(epochs=2, batch_size=16), machine=Machine(device="cpu"))
    asked = [(batch, output) for batch, output in method.teacher.asked if "mixed" in batch]
    assert len(asked) == 6
    for batch, output in asked:
        assert batch["view"].tolist() == [-1] * 16
        assert torch.equal(output, teacher_network()(batch["inputs"]))


@pytest.mark.parametrize("kind", KINDS)
def test_stored_answers_are_refused_and_unmixed_ones_still_given(tmp_path: Path, kind: str) -> None:
    data = mixed(kind)
    stored = CachedTeacher(teacher_network(), tmp_path / "c", data)
    stored.fill([1], batch_size=16)
    ((batch,),) = Loader(data, 16, seed=0, view=1, mix=True, length=16)
    with pytest.raises(RequestError, match="mixes samples") as caught:
        stored(batch)
    assert "cache.mode" in str(caught.value.fix)
    ((plain,),) = Loader(data, 16, seed=0, view=1, length=16)
    torch.testing.assert_close(stored(plain).output, teacher_network()(plain["inputs"]))


RECIPE = """name = "tiny"
[data]
source = "fashion-small"
limit = 96
augment = ["crop", "flip"]
mix = "{kind}"
[teacher]
model = "cnn-tiny"
train = {{ epochs = 1 }}
accept_chance = true
[student]
model = "cnn-tiny"
options = {{ widths = [4, 4, 8, 8] }}
[method]
name = "kd"
[train]
epochs = 1
batch_size = 32
[export]
to = []
[machine]
threads = 1
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_runs_live_and_says_so_and_require_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(RECIPE.format(kind=kind), encoding="utf-8")
    plan = distill("mine.toml", dry_run=True, screen=silent())
    assert "mixed samples (data.mix) are new in every batch" in " ".join(plan.text().split())
    with pytest.raises(RequestError, match=r"mixed samples \(data\.mix\)") as caught:
        distill("mine.toml", overrides=["cache.mode=require"], dry_run=True, screen=silent())
    assert "cache.mode" in str(caught.value)
    done = distill("mine.toml", screen=silent())
    assert done.figures["cache"]["why"] == "mixed samples (data.mix) are new in every batch"
    assert not Path("runs/cache").exists()
    assert 'mode = "off"' in Path("runs/tiny/resolved.toml").read_text()
    with pytest.raises(RequestError, match=r"mixed samples \(data\.mix\)"):
        write_cache("mine.toml", overrides=["teacher.weights=runs/tiny/teacher"], screen=silent())
