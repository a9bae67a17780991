"""MLKD without labels, between families without a layer named, and its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import fit
from limbeck.cache import CachedTeacher
from limbeck.data.dataset import ArrayDataset, Dataset, Indices
from limbeck.data.derived import Augmented
from limbeck.data.views import Views, view_number
from limbeck.engine.settings import Training
from limbeck.methods import MLKD
from limbeck.task import Classification
from tests.methods.families import batch, network
from tests.methods.tapped import CLASSES, changed, cnn, dataset, state
from tests.methods.test_mlkd import method, views

TURNS = Views(0, ["rotate"])
FEW = Training(epochs=3, batch_size=8, learning_rate=0.05)


class Unreadable(Tensor):
    """Labels that fail as soon as anything is done with them but moving them to a device."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.to:
            return super().__torch_function__(func, types, args, kwargs)
        raise AssertionError(f"labels were read by {func}")


class Hidden(Augmented):
    """Turned pictures whose labels fail when they are read."""

    def targets(self) -> Tensor:
        raise AssertionError("labels were asked for")

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        found = super().batch(indices, view)
        return {**found, "targets": found["targets"].as_subclass(Unreadable)}


class Unlabelled(Hidden):
    """Turned pictures without labels: asking for them fails."""

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        found = super().batch(indices, view)
        del found["targets"]
        return found


def unlabelled(samples: int) -> Dataset:
    return Unlabelled(dataset(samples), TURNS)


def free(student: nn.Module, teacher: nn.Module, **settings: Any) -> MLKD:
    example = views(4, dtype=torch.float32)
    torch.manual_seed(3)
    return MLKD(student, teacher, task=Classification(CLASSES), example=example, hard_weight=0.0, **settings)


def test_labels_are_never_read() -> None:
    given = views(dtype=torch.float32)
    given["targets"] = torch.zeros(16, dtype=torch.long).as_subclass(Unreadable)
    with pytest.raises(AssertionError, match="labels were read"):
        method(torch.float32)(given)
    for data in (unlabelled(24), Hidden(dataset(24), TURNS)):
        made = free(cnn(3, 6), cnn(2, 5, seed=2))
        assert made(given).weights == {"correlation": 50.0, "alignment": 20.0}
        done = fit(made, data, settings=FEW)
        assert done.history[-1]["terms"]["alignment"] < done.history[0]["terms"]["alignment"]


def test_without_labels_the_classifier_stays_as_it_is() -> None:
    made = free(cnn(3, 6), cnn(2, 5, seed=2))
    (stage,) = made.stages()
    assert not stage.scored
    before = state(made.student)
    settings = Training(epochs=2, batch_size=8, optimizer_options={"weight_decay": 0.1})
    fit(made, unlabelled(16), settings=settings)
    assert changed(before, made.student) == set(before) - {"fc.weight", "fc.bias"}


def test_a_classifier_is_trained_on_frozen_features_afterwards() -> None:
    made = free(cnn(6, 8), cnn(6, 8, seed=2), linear_epochs=30)
    first, second = made.stages()
    assert (first.views, second.views, second.data, second.epochs) == (4, 1, "labelled", 30)
    fit(made, dataset(32).augment(TURNS), settings=Training(epochs=0, batch_size=8))
    made.enter(second)
    before = state(made)
    found = made(views(8, 1, dtype=torch.float32), update="linear")
    found.total.backward()
    reached = {name for name, value in made.named_parameters() if value.grad is not None}
    assert reached == {"student.fc.weight", "student.fc.bias"}
    assert changed(before, made) == set()
    settings = Training(epochs=33, batch_size=8, learning_rate=0.1)
    done = fit(made, dataset(48, labelled=32).augment(TURNS), dataset(48), settings=settings)
    assert len(done.history) == 33
    assert all("hard" not in entry["terms"] for entry in done.history[:3])
    assert [entry["scores"] == {} for entry in done.history] == [True] * 3 + [False] * 30
    assert done.scores["student"]["accuracy"] > 0.6


class Backbone(nn.Module):
    """A network trained without labels: it has no classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = cnn(3, width, seed=4)
        self.body.fc = nn.Identity()
        self.project = nn.Sequential(nn.Linear(width, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.body(x))


def test_teachers_and_students_without_a_classifier_say_their_features() -> None:
    made = free(cnn(3, 6), Backbone(5))
    assert made.tapped == {"student": ["fc.input"], "teacher": ["project"]}
    assert made.widths == (6, 7)
    both = free(Backbone(4), Backbone(5))
    assert both.tapped == {"student": ["project"], "teacher": ["project"]}
    for each in (made, both):
        each(views(dtype=torch.float32)).total.backward()
    labelled = MLKD(cnn(3, 6), Backbone(5), example=views(4, dtype=torch.float32))
    assert set(labelled(views(dtype=torch.float32)).terms) == {
        "hard",
        "correlation",
        "categorical",
        "alignment",
    }


def test_a_layer_can_be_named() -> None:
    made = free(cnn(3, 6), Backbone(5), taps={"teacher": ["project.0.input"]})
    assert made.tapped == {"student": ["fc.input"], "teacher": ["project.0.input"]}
    assert made.widths == (6, 5)


#: Teacher and student.
FAMILIES = [
    ("resnet14", "resnet8"),
    ("wrn16-1", "shufflenetv2"),
    ("resnet8", "vit"),
    ("vit", "mobilenetv2"),
    ("mixer", "resnet8"),
]


def turned(pictures: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = torch.arange(len(pictures["inputs"])).repeat_interleave(4)
    inputs = pictures["inputs"][rows]
    for place in range(4):
        inputs[place::4] = inputs[place::4].rot90(place, (2, 3))
    return {"inputs": inputs, "targets": pictures["targets"][rows], "index": rows}


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize(("teacher", "student"), FAMILIES, ids=["-".join(each) for each in FAMILIES])
def test_any_two_families_train_without_a_layer_named(
    teacher: str, student: str, size: int, channels: int
) -> None:
    networks = network(student, size, channels, 1), network(teacher, size, channels, 2)
    given = turned(batch(size, channels))
    made = MLKD(*networks, task=Classification(CLASSES), example=given)
    assert all(path.endswith(".input") for paths in made.tapped.values() for path in paths)
    made(given).total.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert set(made.deployable().state_dict()) == set(made.student.state_dict())


def test_odd_sizes_and_large_pictures() -> None:
    for size, samples in ((27, 2), (224, 1)):
        networks = network("cnn-tiny", 28, 1, 1), network("resnet8", 28, 1, 2)
        given = turned(batch(size, 1, samples=samples))
        assert MLKD(*networks, task=Classification(CLASSES), example=given)(given).total.isfinite()


def test_training_brings_directions_and_similarities_together() -> None:
    made = MLKD(
        cnn(4, 8, seed=1),
        cnn(6, 8, seed=2),
        task=Classification(CLASSES),
        example=views(8, dtype=torch.float32),
    )
    done = fit(
        made, dataset(64).augment(TURNS), settings=Training(epochs=8, batch_size=8, learning_rate=0.02)
    )
    first, last = done.history[0], done.history[-1]
    assert last["notes"]["cosine"] > first["notes"]["cosine"]
    assert last["notes"]["same_nearest"] > first["notes"]["same_nearest"]
    for name in ("alignment", "correlation", "hard"):
        assert last["terms"][name] < 0.9 * first["terms"][name]


def grey_pictures(network: nn.Module) -> nn.Module:
    """The network behind a layer that takes one channel."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 2, 1), network)


@pytest.mark.parametrize(
    "augment", [["flip", {"name": "crop", "padding": 2}], ["simclr"]], ids=["crop", "simclr"]
)
def test_other_views_than_turns_and_stored_answers_train_alike(tmp_path: Path, augment: list[Any]) -> None:
    pictures = dataset(32).batch(torch.arange(32))
    data = ArrayDataset(pictures["inputs"][:, :1], pictures["targets"]).augment(Views(0, augment))
    terms = []
    for stored in (False, True, True):
        teacher, student = (grey_pictures(each) for each in (cnn(6, 8, seed=2), cnn(4, 8, seed=1)))
        source: Any = teacher
        if stored:
            source = CachedTeacher(
                teacher, tmp_path / "cache", data, task=Classification(CLASSES), paths=["1.fc.input"]
            )
        torch.manual_seed(3)
        example = data.batch(torch.arange(8))
        made = MLKD(student, source, task=Classification(CLASSES), example=example, views=2)
        done = fit(made, data, settings=Training(epochs=2, batch_size=16), views=2, seed=1)
        terms.append([entry["terms"] for entry in done.history])
    assert terms[0] == terms[1] == terms[2]


def test_the_loops_batches_hold_the_views_of_a_sample() -> None:
    given = views(3, dtype=torch.float32)
    plain = dataset(8).batch(torch.arange(3))["inputs"]
    for place in range(4):
        assert torch.equal(given["inputs"][place::4], plain.rot90(place, (2, 3)))
    assert given["view"].tolist() == [view_number(0, place) for place in range(4)] * 3
