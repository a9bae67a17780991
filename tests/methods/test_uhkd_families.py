"""UHKD between networks of any family without a layer or layout named, and its training."""

from __future__ import annotations

import pytest
import torch

from limbeck import fit
from limbeck.engine.settings import Training
from limbeck.methods import CMKD, KD, UHKD
from limbeck.methods.combination import Combination
from limbeck.task import Classification
from tests.methods.families import CLASSES, batch, network
from tests.methods.tapped import cnn, dataset, images


def made(teacher: str, student: str, size: int, channels: int) -> UHKD:
    networks = network(student, size, channels, 1), network(teacher, size, channels, 2)
    return UHKD(*networks, task=Classification(CLASSES), example=batch(size, channels))


#: Teacher, student, and the forms of both.
FAMILIES = [
    ("resnet14", "resnet8", "bchw", "bchw"),
    ("wrn16-1", "shufflenetv2", "bchw", "bchw"),
    ("resnet8", "vit", "bchw", "blc"),
    ("vit", "mobilenetv2", "blc", "bchw"),
    ("mixer", "resnet8", "blc", "bchw"),
    ("vit-registers", "mixer", "blc", "blc"),
    ("swin", "resnet8", "bhwc", "bchw"),
]


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize(
    ("teacher", "student", "theirs", "own"), FAMILIES, ids=[f"{each[0]}-{each[1]}" for each in FAMILIES]
)
def test_any_two_families_train_without_a_layer_named(
    teacher: str, student: str, theirs: str, own: str, size: int, channels: int
) -> None:
    if (teacher, size) == ("swin", 28):
        size = 16  # its windows halve the grid twice
    method = made(teacher, student, size, channels)
    assert {level.teacher.layout.form for level in method.levels} == {theirs}
    assert {level.student.layout.form for level in method.levels} == {own}
    assert len(method.levels) >= 3
    for level in method.levels:
        sides = [*level.student.sides[1:], *level.teacher.sides[1:]]
        assert level.size == (min(sides), min(sides))
    found = method(batch(size, channels))
    found.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.projectors.parameters())
    assert set(method.deployable().state_dict()) == set(method.student.state_dict())


def test_tokens_before_the_grid_are_left_out() -> None:
    forms = {name: made(name, "resnet8", 32, 3).levels[0].teacher.layout for name in ("vit", "vit-registers")}
    assert {name: layout.prefix for name, layout in forms.items()} == {"vit": 1, "vit-registers": 2}
    method, given = made("vit", "resnet8", 32, 3), batch(32, 3)
    student, teacher = method.student_taps(given), method.teacher(given)
    one = method.losses(student, teacher, given)
    for name, value in teacher.layers.items():
        changed = value.clone()
        changed[:, 0] += 5.0
        teacher.layers[name] = changed
    other = method.losses(student, teacher, given)
    assert all(torch.equal(one.terms[name], other.terms[name]) for name in one.terms)


def test_large_pictures() -> None:
    method = made("vit", "cnn-tiny", 224, 3)
    assert all(level.size == (4, 4) for level in method.levels)
    assert method(batch(224, 3, samples=2)).total.isfinite()


@pytest.mark.parametrize("size", [27, 29, (19, 30)])
def test_odd_sizes_and_pictures_that_are_not_square(size: int | tuple[int, int]) -> None:
    given = batch(size, 1)
    networks = network("resnet8", 28, 1, 1), network("cnn-tiny", 28, 1, 2)
    method = UHKD(*networks, task=Classification(CLASSES), example=given)
    assert {level.student.layout.form for level in method.levels} == {"bchw"}
    found = method(given)
    found.total.backward()
    assert found.total.isfinite()


def test_training_brings_the_spectra_together_at_every_level() -> None:
    torch.manual_seed(7)
    method = UHKD(cnn(4, 4, 6, seed=1), cnn(6, 8, 8, seed=2), task=Classification(4), example=images(8))
    done = fit(method, dataset(64), settings=Training(epochs=4, batch_size=8, learning_rate=0.05))
    first, last = done.history[0]["terms"], done.history[-1]["terms"]
    for name in ("freq1", "freq2", "freq3"):
        assert last[name] < 0.8 * first[name]


def test_it_trains_without_any_label() -> None:
    method = UHKD(cnn(4, 4, seed=1), cnn(6, 8, seed=2), task=Classification(4), example=images(8))
    done = fit(method, dataset(48, labelled=0), settings=Training(epochs=3, batch_size=8, learning_rate=0.05))
    first, last = done.history[0]["terms"], done.history[-1]["terms"]
    assert last["freq1"] < first["freq1"]
    assert last["hard"] == 0


def test_beside_other_methods_its_terms_stay_apart() -> None:
    student, teacher = cnn(4, 4, seed=1), cnn(6, 8, seed=2)
    levels = UHKD(student, teacher, example=images(), hard_weight=0.0, soft_weight=0.0)
    alone = levels(images())
    both = Combination([KD(student, teacher), levels, CMKD(student, teacher, hard_weight=0.0)])
    found = both(images())
    for name in ("freq1", "freq2"):
        assert torch.equal(found.terms[f"uhkd.{name}"], alone.terms[name])
    assert {name.partition(".")[0] for name in found.terms} == {"kd", "uhkd", "cmkd"}
    found.total.backward()
    assert all(p.grad is not None for p in levels.projectors.parameters())
