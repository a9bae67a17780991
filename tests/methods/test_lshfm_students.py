"""LSHFM: what becomes of the student, its stages, pairs of any family, other kinds of task, resume."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import fit
from limbeck.cache import CachedTeacher
from limbeck.data.dataset import ArrayDataset
from limbeck.data.views import Views
from limbeck.engine.interruption import Interruption
from limbeck.engine.listener import Listener
from limbeck.engine.settings import Training
from limbeck.errors import Interrupted
from limbeck.methods import CMKD, KD, LSHFM
from limbeck.methods._embedding import EmbeddedClassifier
from limbeck.methods.combination import Combination
from limbeck.task import Classification, MultiLabel, Regression
from tests.methods.families import batch, network
from tests.methods.tapped import CLASSES, changed, cnn, dataset, images, state
from tests.methods.test_lshfm import TASK, method

FEW = Training(epochs=2, batch_size=8)


# -- the embedding ----------------------------------------------------------------------------------------


def test_the_embedding_folds_into_the_students_own_architecture() -> None:
    made = method()
    fit(made, dataset(24), settings=FEW)
    made.eval()
    own = cnn(3, 3, seed=9).eval()
    own.load_state_dict(made.deployable().state_dict())
    inputs = images(8)["inputs"]
    assert isinstance(made.student.fc, EmbeddedClassifier)
    assert torch.allclose(own(inputs), made.student(inputs), atol=1e-5)
    assert torch.allclose(own(inputs), made.deployable().eval()(inputs))
    names = {name for name, _ in made.deployable().named_modules()}
    assert names == {name for name, _ in own.named_modules()}


def test_nothing_is_drawn_when_it_is_folded() -> None:
    made = method()
    before = torch.random.get_rng_state()
    made.deployable()
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_classifier_without_bias_stays_without() -> None:
    student = cnn(3, 3, seed=1)
    student.fc = nn.Linear(3, CLASSES, bias=False)
    made = LSHFM(student, cnn(4, 5, seed=2), task=TASK, example=images(8)).eval()
    inputs = images(8)["inputs"]
    assert "fc.bias" not in made.deployable().state_dict()
    assert torch.allclose(made.deployable()(inputs), made.student(inputs), atol=1e-5)


@pytest.mark.parametrize(("force", "kind"), [(None, nn.Linear), (True, EmbeddedClassifier)])
def test_equal_widths_need_no_embedding(force: bool | None, kind: type) -> None:
    made = method(own=5, force_embedding=force)
    assert type(made.student.fc) is kind
    assert type(made.deployable().fc) is nn.Linear


def test_the_hyperplanes_are_saved_and_neither_trained_nor_deployed() -> None:
    made = method()
    kept = {"hash_weight", "hash_bias", "bias_fitted"}
    assert kept <= set(made.state_dict())
    assert not any(name in kept for name, _ in made.named_parameters())
    before = state(made)
    done = fit(made, dataset(24), settings=FEW)
    assert "hash_weight" not in changed(before, made)
    assert not kept & set(made.deployable().state_dict())
    other = method(std=1.0)  # other hyperplanes
    other.load_state_dict(done.method.state_dict())
    assert not changed(state(made), other)


def test_they_are_as_wide_as_the_teachers_classifier() -> None:
    made = method(num_hashes=4000)
    std = float(made.teacher.model.fc.weight.std())
    assert made.std == pytest.approx(std)
    assert float(made.hash_weight.std()) == pytest.approx(std, rel=0.05)
    assert len(method().hash_weight) == 32 * 5
    assert float(method(num_hashes=4000, std=0.06).hash_weight.std()) == pytest.approx(0.06, rel=0.05)


# -- the bias ---------------------------------------------------------------------------------------------


def test_it_is_fitted_once_when_training_begins_and_never_on_resume(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counted(ArrayDataset):
        def batch(self, indices: Any, view: int | Tensor = 0) -> dict[str, Any]:
            seen.append(len(indices))
            return super().batch(indices, view)

    given = dataset(24).batch(range(24))
    data = Counted(given["inputs"], given["targets"])
    made = method(begun=False)
    fit(made, data, settings=Training(epochs=1, batch_size=8), folder=tmp_path)
    assert seen == [24, 8, 8, 8]  # the whole set, then the steps
    drawn = made.hash_weight.clone(), made.hash_bias.clone()
    again = method(begun=False, std=1.0)  # other hyperplanes
    fit(again, data, settings=Training(epochs=2, batch_size=8), folder=tmp_path, resume=True)
    assert seen.count(24) == 1
    assert all(map(torch.equal, (again.hash_weight, again.hash_bias), drawn))


def test_it_is_that_of_the_teacher_in_eval_mode_in_one_augmented_view() -> None:
    data = dataset(24).augment(Views(0, ["crop", "flip"]))
    made = method(begun=False)
    made.teacher.model.train()
    made.stages()[0].begin(data)
    with torch.no_grad():
        features = made.teacher.model.eval()(data.batch(range(24), 1)["inputs"])
        target = made.teacher(data.batch(range(24), 1))["fc.input"]
    assert features.shape == (24, CLASSES)
    assert torch.allclose(made.hash_bias, -(target @ made.hash_weight.T).median(0).values, atol=1e-6)


def test_a_stored_teacher_gives_the_same(tmp_path: Path) -> None:
    data, teacher = dataset(24), cnn(4, 5, seed=2)
    live = method(begun=False)
    cached = CachedTeacher(teacher, tmp_path / "cache", data, task=TASK)
    student = cnn(3, 3, seed=1)
    torch.manual_seed(3)
    stored = LSHFM(student, cached, task=TASK, example=images(8))
    for made in (live, stored):
        made.stages()[0].begin(data)
    assert torch.equal(live.hash_bias, stored.hash_bias)


# -- stages -----------------------------------------------------------------------------------------------


def labels(samples: int = 24) -> ArrayDataset:
    given = dataset(samples).batch(range(samples))
    several = nn.functional.one_hot(given["targets"], CLASSES)
    several[:, 0] = (several.sum(1) > 0).long() * (torch.arange(samples) % 2)
    return ArrayDataset(given["inputs"], several)


@pytest.mark.parametrize("moves", [False, True])
def test_several_labels_are_learned_in_two_stages(moves: bool) -> None:
    made = method(own=5, begun=False, task=MultiLabel(CLASSES), align_statistics=moves)
    assert (made.variant, made.beta, made.align_beta, made.num_hashes) == ("lshl2", 0.5, 1.0, 2048)
    align, train = made.stages()
    assert (align.name, train.name, align.share, train.share) == ("align", "train", 1, 1)
    assert align.begin is not None
    assert train.begin is None  # one W and b for both
    align.begin(labels())
    made.enter(align)
    before = state(made)
    found = made({"inputs": images(8)["inputs"]}, update="align")  # no labels
    assert set(found.terms) == {"feature", "hash"}
    assert set(found.weights.values()) == {1.0}
    found.total.backward()
    trained = {name for name, p in made.named_parameters() if p.grad is not None}
    assert trained == {"student.fc.embedding.weight", "student.fc.embedding.bias"}
    moved = changed(before, made)
    assert all("running" in name or "num_batches" in name for name in moved)
    assert bool(moved) == moves
    assert not made.student.training
    made.enter(train)
    found = made(labels().batch(range(8)))
    assert set(found.terms) == {"feature", "hash", "hard"}
    logits = made.student_taps({"inputs": labels().batch(range(8))["inputs"]}).output
    mean = nn.functional.binary_cross_entropy_with_logits(logits, labels().batch(range(8))["targets"].float())
    assert float(found.terms["hard"].detach()) == pytest.approx(float(mean.detach()), rel=1e-4)
    assert (found.weights["feature"], found.weights["hard"]) == (0.5, 1.0)


def test_both_stages_run_in_the_engine() -> None:
    made = method(begun=False, task=MultiLabel(CLASSES))
    done = fit(made, labels(), labels(), settings=Training(epochs=4, batch_size=8))
    assert [set(entry["terms"]) >= {"hard"} for entry in done.history] == [False, False, True, True]
    assert done.history[1]["terms"]["feature"] < done.history[0]["terms"]["feature"]


def test_two_stages_with_classes_read_no_labels_in_the_first() -> None:
    made = method(two_stages=True, align_beta=2.0)
    align, _ = made.stages()
    made.enter(align)
    found = made({"inputs": images(8)["inputs"]}, update="align")
    assert set(found.weights.values()) == {2.0}


def test_without_a_term_on_outputs_the_classifier_rests() -> None:
    made = method(hard_weight=0.0)
    (stage,) = made.stages()
    assert not stage.scored
    before = state(made.student)
    fit(made, dataset(24, labelled=0), settings=FEW)
    still = set(before) - changed(before, made.student)
    assert {name for name in still if "num_batches" not in name} == {
        "fc.classifier.weight",
        "fc.classifier.bias",
    }
    assert {m for m in made.student.modules() if isinstance(m, nn.Dropout)} == {made.student.dropout}
    made.enter(stage)
    assert made.student.dropout.training


def test_values_are_learned_too() -> None:
    networks = [nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2)) for width in (3, 5)]
    data = ArrayDataset(torch.rand(20, 6), torch.rand(20, 2))
    made = LSHFM(*networks, task=Regression(), example=data.batch(range(8)))
    assert (made.variant, made.two_stages) == ("lshl2", False)
    done = fit(made, data, settings=FEW)
    assert set(done.history[-1]["terms"]) >= {"feature", "hash", "hard"}


# -- other teachers and other methods ---------------------------------------------------------------------


class Trunk(nn.Module):
    """A teacher without a classifier: its output is the feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = cnn(4, width, seed=2)
        self.body.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_a_teacher_without_a_classifier() -> None:
    made = LSHFM(cnn(3, 3, seed=1), Trunk(5), task=TASK, example=images(8), std=0.06)
    assert (made.variant, made.widths) == ("lshl2", (3, 5))
    done = fit(made, dataset(24), settings=FEW)
    assert done.history[-1]["terms"]["feature"] > 0


def test_a_teacher_of_other_classes() -> None:
    teacher = cnn(4, 5, seed=2)
    teacher.fc = nn.Linear(5, 7)
    made = LSHFM(cnn(3, 3, seed=1), teacher, task=TASK, example=images(8))
    assert made.variant == "lshl2"
    fit(made, dataset(24), settings=FEW)


@pytest.mark.parametrize("first", [True, False])
def test_beside_other_methods_its_terms_stay_apart(first: bool) -> None:
    student, teacher = cnn(3, 3, seed=1), cnn(4, 5, seed=2)
    others: list[Any] = [] if first else [KD(student, teacher), CMKD(student, teacher, hard_weight=0.0)]
    own = LSHFM(student, teacher, example=images(8), hard_weight=0.0)
    others = others or [KD(student, teacher), CMKD(student, teacher, hard_weight=0.0)]
    both = Combination([*others, own])
    done = fit(both, dataset(24), settings=FEW)
    assert {name.partition(".")[0] for name in done.history[-1]["terms"]} >= {"kd", "lshfm", "cmkd"}
    assert isinstance(both.deployable().fc, nn.Linear)
    inputs = images(8)["inputs"]
    both.eval()
    assert torch.allclose(both.deployable()(inputs), student(inputs), atol=1e-5)


# -- families ---------------------------------------------------------------------------------------------

#: Teacher, student.
FAMILIES = [
    ("resnet14", "resnet8"),
    ("wrn16-1", "shufflenetv2"),
    ("resnet8", "vit"),
    ("vit", "mobilenetv2"),
    ("mixer", "resnet8"),
    ("swin", "cnn-tiny"),
]


def pair(teacher: str, student: str, size: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Student and teacher; heads that start at zero are drawn, as after a training."""
    one, other = network(student, size, channels, 1), network(teacher, size, channels, 2)
    for each in (one, other):
        for module in each.modules():
            if isinstance(module, nn.Linear) and not bool(module.weight.any()):
                nn.init.normal_(module.weight, std=0.1)
    return one, other


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize(("teacher", "student"), FAMILIES, ids=["-".join(each) for each in FAMILIES])
def test_any_two_families_without_a_layer_named(teacher: str, student: str, size: int, channels: int) -> None:
    if (teacher, size) == ("swin", 28):
        size = 16  # its windows halve the grid twice
    own, other = pair(teacher, student, size, channels)
    names = set(own.state_dict())
    given = batch(size, channels)
    made = LSHFM(own, other, task=Classification(CLASSES), example=given, num_hashes=64)
    made.stages()[0].begin(ArrayDataset(given["inputs"], given["targets"]))
    found = made(given)
    found.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own.parameters())
    made.eval()
    deployed = made.deployable()
    assert set(deployed.state_dict()) == names
    with torch.no_grad():
        assert torch.allclose(deployed(given["inputs"]), own(given["inputs"]), atol=1e-5)


@pytest.mark.parametrize("size", [27, 31])
def test_odd_sizes(size: int) -> None:
    own, other = pair("resnet8", "cnn-tiny", 28, 1)
    made = LSHFM(own, other, task=Classification(CLASSES), example=batch(size, 1), bias="zero")
    assert made(batch(size, 1)).total.isfinite()


def test_large_pictures() -> None:
    own, other = pair("vit", "cnn-tiny", 224, 3)
    given = batch(224, 3, samples=2)
    made = LSHFM(own, other, task=Classification(CLASSES), example=given, bias="zero")
    assert made(given).total.isfinite()


def test_an_own_loop() -> None:
    made = method(begun=False)
    (stage,) = made.stages()
    assert stage.begin is not None
    stage.begin((images(8)["inputs"], images(8)["targets"]))
    made.enter(stage)
    optimizer = torch.optim.SGD(stage.updates[0].parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        loss = made(images(8)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# -- the mean of the last epochs --------------------------------------------------------------------------


class Kept(Listener):
    """Copies the student at the end of every epoch."""

    def __init__(self, made: LSHFM) -> None:
        self.made = made
        self.states: list[dict[str, Tensor]] = []

    def on_epoch(self, event: Any) -> None:
        self.states.append(state(self.made.student))


def test_the_mean_of_the_last_epochs_is_scored_beside_the_student() -> None:
    made = method(average_epochs=3, hard_weight=1.0)
    kept = Kept(made)
    done = fit(made, dataset(24), dataset(24), settings=Training(epochs=5, batch_size=8), listener=kept)
    assert set(done.scores) == {"student", "averaged"}
    averaged = made.last.averaged(made.student).state_dict()
    for name, value in averaged.items():
        last = [each[name] for each in kept.states[-3:]]
        if value.is_floating_point():
            assert torch.allclose(value, torch.stack(last).mean(0), atol=1e-6), name
        else:
            assert torch.equal(value, last[-1]), name
    own, mean = made.networks()["student"], made.networks()["averaged"]
    assert set(own.state_dict()) == set(mean.state_dict())
    assert not any(p.requires_grad for p in made.last.parameters())


def test_a_resume_goes_on_with_the_mean(tmp_path: Path) -> None:
    def trained(
        listener: Listener | None = None, *, resume: bool = False, folder: Path | None = None
    ) -> LSHFM:
        made = method(average_epochs=3, begun=False)
        settings = Training(epochs=4, batch_size=8)
        stop = Interruption()
        if listener is not None:
            listener.stop = stop
        with contextlib.suppress(Interrupted):
            given: dict[str, Any] = {"folder": folder, "resume": resume, "interruption": stop}
            fit(made, dataset(24), settings=settings, listener=listener or Listener(), **given)
        return made

    class Stopping(Listener):
        stop: Interruption
        steps = 0

        def on_step(self, event: Any) -> None:
            self.steps += 1
            if self.steps == 10:  # the first of the last epoch: the end of the third is counted
                self.stop.signal_number = signal.SIGINT

    whole = trained()
    trained(Stopping(), folder=tmp_path)
    resumed = trained(resume=True, folder=tmp_path)
    assert int(resumed.last.counted) == 2
    assert not changed(state(whole), resumed)
