"""MHKD between networks of any family without a layer named, and kinds of tasks and data."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck import Teacher, fit
from limbeck._contract.building import settings_for
from limbeck._contract.tiny import example_for
from limbeck.cache import CachedTeacher
from limbeck.engine.listener import Listener, StepEnd
from limbeck.engine.settings import Machine, Training
from limbeck.losses import top_k
from limbeck.methods import MHKD
from limbeck.record import Record
from limbeck.task import Classification, MultiLabel, Regression
from tests.methods.families import CLASSES, batch, network
from tests.methods.tapped import cnn, dataset, images
from tests.methods.test_mhkd import entered, method

#: Teacher, student, and the forms of both.
FAMILIES = [
    ("resnet14", "resnet8", "bchw", "bchw"),
    ("wrn16-1", "shufflenetv2", "bchw", "bchw"),
    ("resnet8", "vit", "bchw", "blc"),
    ("vit", "mobilenetv2", "blc", "bchw"),
    ("mixer", "resnet8", "blc", "bchw"),
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
    networks = network(student, size, channels, 1), network(teacher, size, channels, 2)
    given = batch(size, channels)
    made = entered(MHKD(*networks, task=Classification(CLASSES), example=given, width=4))
    assert {port.layout.form for port in made.teacher_branches.ports} == {theirs}
    assert {port.layout.form for port in made.branches.ports} == {own}
    assert made.num_heads >= 3
    found = made(given)
    found.total.backward()
    for branches in (made.branches, made.teacher_branches):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in branches.parameters())
    assert set(made.deployable().state_dict()) == set(made.student.state_dict())


def test_tokens_before_the_grid_are_left_out_of_convolutions() -> None:
    given = batch(32, 3)
    made = MHKD(network("resnet8", 32, 3, 1), network("vit", 32, 3, 2), example=given, width=4).eval()
    assert {port.layout.prefix for port in made.teacher_branches.ports} == {1}
    student, teacher = made.student_taps(given), made.teacher(given)
    one = made.losses(student, teacher, given)
    for name, value in teacher.layers.items():
        teacher.layers[name] = torch.cat((value[:, :1] + 5.0, value[:, 1:]), 1)
    other = made.losses(student, teacher, given)
    assert torch.equal(one.total, other.total)


def test_linear_heads_on_tokens_and_maps_of_pictures() -> None:
    given = batch(32, 3)
    networks = network("vit", 32, 3, 1), network("resnet8", 32, 3, 2)
    made = entered(MHKD(*networks, example=given, width=4, head="linear"))
    made(given).total.backward()
    assert [head.layers[0].in_features for head in made.branches.each()] == [12, 12, 12]


def test_large_pictures() -> None:
    given = batch(224, 3, samples=2)
    made = MHKD(network("cnn-tiny", 224, 3, 1), network("vit", 224, 3, 2), example=given, width=4)
    assert entered(made)(given).total.isfinite()


@pytest.mark.parametrize("size", [27, 29, (19, 30)])
def test_odd_sizes_and_pictures_that_are_not_square(size: int | tuple[int, int]) -> None:
    given = batch(size, 1)
    made = MHKD(network("resnet8", 28, 1, 1), network("cnn-tiny", 28, 1, 2), example=given, width=4)
    assert {port.layout.form for port in made.branches.ports} == {"bchw"}
    assert entered(made)(given).total.isfinite()
    other = (30, 33) if isinstance(size, int) else (21, 26)
    assert made(batch(other, 1)).total.isfinite()  # the mean over the map takes any size


@pytest.mark.parametrize("task", [MultiLabel(4), Regression()], ids=["labels", "values"])
def test_several_labels_and_values(task: MultiLabel | Regression) -> None:
    given = images(4) | {"targets": torch.eye(4)}
    made = entered(MHKD(cnn(3, 4, seed=1), cnn(4, 5, seed=2), task=task, example=given, width=3))
    losses = made(given)
    losses.total.backward()
    assert losses.notes == {}
    assert {"head1_soft", "teacher_head2_hard"} <= set(losses.terms)


def test_mixed_samples_have_the_loss_of_both_targets_and_no_accuracy() -> None:
    made = method().eval()
    given = images(4)
    mixed = {"targets": given["targets"].flip(0), "share": torch.full((4,), 0.75)}
    both = made({**given, "mixed": mixed})
    one, other = made(given), made({**given, "targets": given["targets"].flip(0)})
    for name in ("hard", "head1_hard", "teacher_head2_hard"):
        wanted = 0.75 * one.terms[name].item() + 0.25 * other.terms[name].item()
        assert both.terms[name].item() == pytest.approx(wanted, rel=1e-5)
    assert both.notes == {}


@pytest.mark.parametrize("teacher_heads", ["joint", "pretrained"])
def test_half_precision_is_compared_in_single(teacher_heads: str) -> None:
    torch.manual_seed(0)
    teacher = Teacher(cnn(4, 6).to(torch.bfloat16))
    made = MHKD(cnn(3, 4), teacher, example=images(), width=3, teacher_heads=teacher_heads)
    for stage in made.stages():
        made.enter(stage)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = made(images(), update=stage.updates[0].name)
        losses.total.backward()
        assert all(term.dtype == torch.float32 and term.isfinite() for term in losses.terms.values())
    own = MHKD(cnn(3, 4).to(torch.bfloat16), cnn(4, 6), example=images(), width=3)
    assert next(own.branches.parameters()).dtype == torch.float32
    assert own(images()).total.dtype == torch.float32


@pytest.mark.parametrize("settings", [{}, {"teacher_heads": "pretrained"}, {"target": "logits"}])
def test_stored_answers_give_the_same_bits(settings: dict[str, Any], tmp_path: Any) -> None:
    data, teacher = dataset(24), cnn(4, 6, seed=2)
    found = []
    for stored in (False, True, True):
        given = Teacher(teacher)
        if stored:
            layers = [] if "target" in settings else ["layer1", "layer2"]
            given = CachedTeacher(teacher, tmp_path / "cache", data, paths=layers)
        torch.manual_seed(3)
        example = data.batch(torch.arange(8))
        made = MHKD(cnn(3, 4, seed=1), given, task=Classification(4), example=example, width=3, **settings)
        done = fit(made, data, settings=Training(epochs=2, batch_size=8))
        found.append([entry["terms"] for entry in done.history])
    assert found[0] == found[1] == found[2]


def test_a_teacher_of_which_the_largest_outputs_were_kept() -> None:
    made = method(target="logits").eval()
    assert made.top_k_temperatures() == (4.0,)
    student, teacher = made.student_taps(images(4)), made.teacher(images(4))
    kept = Record(top_k(teacher.output, 4, [4.0]), teacher.layers)
    whole, sparse = (made.losses(student, each, images(4)) for each in (teacher, kept))
    assert sparse.total.item() == pytest.approx(whole.total.item(), rel=1e-5)


def test_labels_are_not_needed_where_no_term_reads_them() -> None:
    settings = {"hard_weight": 0.0, "head_hard_weight": 0.0, "target": "logits"}
    losses = entered(method(**settings))({"inputs": images(4)["inputs"]})
    assert set(losses.terms) == {"soft", "head1_soft", "head2_soft"}


class Modes(Listener):
    """Which parts are in train mode at each step."""

    def __init__(self, made: MHKD) -> None:
        self.made, self.seen = made, set[tuple[int, bool, bool, bool]]()

    def on_step(self, event: StepEnd) -> None:
        parts = (self.made.student, self.made.branches, self.made.teacher_branches)
        self.seen.add((event.epoch, *(part.training for part in parts)))


@pytest.mark.parametrize(
    ("teacher_heads", "epochs", "modes"),
    [
        ("joint", (1, 2), [(True, True, True)]),
        ("pretrained", (1, 2), [(False, False, True), (True, True, False)]),
    ],
)
def test_train_mode_is_put_back_after_every_validation(
    teacher_heads: str, epochs: tuple[int, ...], modes: list[tuple[bool, ...]]
) -> None:
    made = method(teacher_heads=teacher_heads)
    listener, settings = Modes(made), Training(epochs=2 * len(modes), batch_size=8)
    fit(made, dataset(16), dataset(8), settings=settings, listener=listener)
    assert listener.seen == {(epoch, *mode) for epoch in epochs for mode in modes}


def test_micro_batches_without_batch_norms_equal_one_batch_and_share_their_draws() -> None:
    example = example_for(MHKD.card)
    data = example.data(22, double=True, unlabelled=True)
    found = []
    for machine in (Machine(), Machine(micro_batch=3)):
        networks = example.network(0).double(), example.network(100).double()
        torch.manual_seed(0)
        given = {"task": example.task, "example": data.batch(torch.arange(8))}
        made = MHKD(*networks, **given, head="linear", width=4, head_dropout=0.5, seed=1).double()
        assert not made.card.couples_batch
        done = fit(made, data, settings=settings_for(3, optimizer="SGD"), machine=machine)
        found.append(done.method.state_dict())
    assert all(torch.allclose(found[0][name], value, atol=1e-9) for name, value in found[1].items())


def test_a_class_may_be_absent_and_features_constant() -> None:
    made = entered(method())
    student, teacher = made.student_taps(images(4)), made.teacher(images(4))
    for record in (student, teacher):
        for name, value in record.layers.items():
            record.layers[name] = value * 0 + 0.5
    losses = made.losses(student, teacher, images(4) | {"targets": torch.zeros(4, dtype=torch.long)})
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(value.grad.isfinite().all() for value in made.branches.parameters())


def test_a_batch_without_any_label_has_divergences_alone() -> None:
    losses = entered(method())(images(4) | {"targets": torch.full((4,), -1)})
    assert losses.terms["hard"].item() == losses.terms["teacher_head1_hard"].item() == 0.0
    assert losses.terms["head1_soft"].item() > 0
    assert losses.notes["head_accuracy"].tolist() == [0.0, 0.0]
