"""UniKD between networks of any family without a layer or layout named, on text, and its training."""

from __future__ import annotations

import pytest
import torch

from limbeck import fit
from limbeck.engine.settings import Training
from limbeck.methods import CMKD, KD, Plain, UniKD
from limbeck.methods.combination import Combination
from limbeck.record import Record
from limbeck.task import Classification
from tests.methods.families import CLASSES, batch, network
from tests.methods.tapped import cnn, dataset, encoder, images, texts

#: Teacher, student, and the forms of their stages.
FAMILIES = [
    ("resnet14", "resnet8", "bchw", "bchw"),
    ("wrn16-1", "shufflenetv2", "bchw", "bchw"),
    ("resnet8", "vit", "bchw", "blc"),
    ("vit", "mobilenetv2", "blc", "bchw"),
    ("mixer", "resnet8", "blc", "bchw"),
    ("swin", "resnet8", "bhwc", "bchw"),
]


def made(teacher: str, student: str, size: int, channels: int, **settings: object) -> UniKD:
    networks = network(student, size, channels, 1), network(teacher, size, channels, 2)
    return UniKD(*networks, task=Classification(CLASSES), example=batch(size, channels), **settings)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize(("teacher", "student", "theirs", "own"), FAMILIES)
def test_any_two_families_need_no_layer_named(
    teacher: str, student: str, theirs: str, own: str, size: int, channels: int
) -> None:
    method = made(teacher, student, size, channels)
    heads = method.heads
    for levels, form in ((heads.student_levels, own), (heads.teacher_levels, theirs)):
        assert len(levels) >= 3
        assert levels[0].layout.form == "bc"  # the pooled vector
        assert {level.layout.form for level in levels[1:]} == {form}
    assert heads.fusion.sizes == [level.sides[1:] for level in heads.teacher_levels]
    assert heads.fusion.out.in_channels == min(512, heads.student_levels[0].sides[0])
    found = method(batch(size, channels))
    found.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    assert set(method.deployable().state_dict()) == set(method.student.state_dict())


@pytest.mark.parametrize("place", ["first_stage", "last_stage"])
def test_other_teacher_maps_of_unlike_families(place: str) -> None:
    method = made("vit", "mobilenetv2", 32, 3, teacher_feature=place)
    assert len(method.teacher.paths) == 1
    assert method(batch(32, 3)).total.isfinite()


def test_large_pictures() -> None:
    assert made("vit", "cnn-tiny", 224, 3)(batch(224, 3, samples=2)).total.isfinite()


@pytest.mark.parametrize("size", [27, 29, (19, 30)])
def test_odd_sizes_and_pictures_that_are_not_square(size: int | tuple[int, int]) -> None:
    given = batch(size, 1)
    networks = network("resnet8", 28, 1, 1), network("cnn-tiny", 28, 1, 2)
    method = UniKD(*networks, task=Classification(CLASSES), example=given)
    said = method.heads(method.student_taps(given), method.teacher(given), given, look=True)
    assert said.maps[0].shape == said.maps[1].shape
    found = method(given)
    found.total.backward()
    assert found.total.isfinite()


def test_sequences_are_averaged_over_what_is_no_padding() -> None:
    given, paths = texts(6), ["blocks.0", "blocks.1", "fc.input"]
    method = UniKD(
        encoder(4, seed=1), encoder(6, seed=2), taps={"student": paths, "teacher": paths}, example=given
    )
    assert [level.layout.form for level in method.heads.student_levels] == ["bc", "line", "line"]
    assert method.heads.fusion.sizes == [(1, 1)] * 3
    student, teacher = method.student_taps(given), method.teacher(given)
    maps = method.heads(student, teacher, given, look=True).maps
    padding = given["inputs"]["attention_mask"] == 0
    for path in paths[:2]:
        student.layers[path] = student[path].masked_fill(padding[..., None], float("nan"))
    other = method.heads(student, teacher, given, look=False).maps
    assert torch.equal(other[0], maps[0])
    proposed = UniKD(encoder(4, seed=1), encoder(6, seed=2), example=given)
    assert proposed.tapped["student"][-1] == "fc.input"
    assert proposed(given).total.isfinite()


def test_the_mean_of_a_sequence_by_hand() -> None:
    given, paths = texts(3), ["blocks.0", "fc.input"]
    method = UniKD(encoder(4), encoder(6), taps={"student": paths, "teacher": paths}, example=given)
    values = torch.arange(3 * 5 * 4).float().reshape(3, 5, 4)
    record = Record(None, {"blocks.0": values, "fc.input": torch.ones(3, 4)})
    seen: list[torch.Tensor] = []
    method.heads.fusion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][1]))
    method.heads(record, method.teacher(given), given, look=False)
    expected = torch.stack([values[i, : i + 1].mean(0) for i in range(3)])  # lengths 1, 2, 3
    torch.testing.assert_close(seen[0].flatten(1), expected)


@pytest.mark.parametrize("place", ["aff", "last_stage"])
def test_each_head_learns_what_its_network_says(place: str) -> None:
    data, task = dataset(64), Classification(4)
    settings = Training(epochs=15, batch_size=16, optimizer="Adam", learning_rate=0.01, optimizer_options={})
    teacher = cnn(6, 8, 8, seed=2)
    fit(Plain(teacher, task=task), data, settings=settings)
    torch.manual_seed(7)
    method = UniKD(cnn(4, 4, 6, seed=1), teacher, task=task, example=images(), teacher_feature=place)
    done = fit(method, data, settings=settings)
    first, last = done.history[0]["terms"], done.history[-1]["terms"]
    assert all(last[n] < 0.6 * first[n] for n in ("feature", "supp_student", "supp_teacher"))
    given = data.batch(torch.arange(64))
    student, said = method.student_taps(given), method.teacher(given)
    z = method.heads(student, said, given, look=True).teacher.mean
    right = z.argmax(1) == said.output.argmax(1)
    assert right.float().mean() > 0.5  # chance is 1 in 4


def test_it_trains_without_any_label() -> None:
    method = UniKD(cnn(4, 4, seed=1), cnn(6, 8, seed=2), task=Classification(4), example=images(8))
    done = fit(method, dataset(48, labelled=0), settings=Training(epochs=3, batch_size=8, learning_rate=0.05))
    first, last = done.history[0]["terms"], done.history[-1]["terms"]
    assert last["supp_teacher"] < first["supp_teacher"]
    assert last["hard"] == 0


def test_beside_other_methods_its_terms_stay_apart() -> None:
    student, teacher, given = cnn(4, 4, seed=1), cnn(6, 8, seed=2), images()
    levels = UniKD(student, teacher, example=given, hard_weight=0.0, logits="none")
    levels.epoch = 1
    alone = levels(given)
    both = Combination([KD(student, teacher), levels, CMKD(student, teacher, hard_weight=0.0)])
    both.epoch = 1
    found = both(given)
    for name in ("feature", "supp_student", "supp_teacher"):
        assert torch.equal(found.terms[f"unikd.{name}"], alone.terms[name])
    assert {name.partition(".")[0] for name in found.terms} == {"kd", "unikd", "cmkd"}
    found.total.backward()
    assert all(p.grad is not None for p in levels.heads.parameters())
