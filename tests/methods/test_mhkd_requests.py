"""What MHKD refuses, and what it says."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from limbeck import fit
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, RunError
from limbeck.methods import MHKD
from limbeck.record import Record
from limbeck.task import MultiLabel
from tests.methods.tapped import cnn, dataset, encoder, images, texts
from tests.methods.test_mhkd import entered, method


def pair(student: list[str], teacher: list[str]) -> dict[str, list[str]]:
    return {"student": student, "teacher": teacher}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"taps": pair(["layer1", "layer2"], ["layer1"])}, "2 student taps and 1 teacher taps"),
        ({"taps": pair([], [])}, "needs at least one layer of each network"),
        ({"taps": pair(["layer9"], ["layer1"])}, "no layer 'layer9'"),
        ({"taps": pair(["layer1"], ["layer9"])}, "no layer 'layer9'"),
        ({"taps": pair(["fc.input"], ["layer2"])}, "'student fc.input' gives (4, 4), a vector"),
        ({"taps": pair(["layer2"], ["fc.input"])}, "'teacher fc.input' gives (4, 5), a vector"),
        (
            {"target": "logits", "taps": pair(["layer1"], ["layer1"])},
            "at least one layer of the student and of no other",
        ),
        ({"target": "feature"}, "target = 'feature'; needed branch, logits"),
        ({"teacher_heads": "frozen"}, "teacher_heads = 'frozen'; needed joint, pretrained"),
        ({"head": "mlp"}, "head = 'mlp'; needed conv, linear"),
        ({"head_init": "zeros"}, "head_init = 'zeros'; needed default, orthogonal"),
        ({"temperature": 0.0}, "temperature 0.0; needed a number above 0"),
        ({"hard_weight": -0.1}, "hard_weight -0.1; needed a number >= 0"),
        ({"soft_weight": float("nan")}, "soft_weight nan; needed a number >= 0"),
        ({"beta": -1.0}, "beta -1.0; needed a number >= 0"),
        ({"head_soft_weight": -1.0}, "head_soft_weight -1.0; needed"),
        ({"head_hard_weight": float("inf")}, "head_hard_weight inf; needed"),
        ({"width": 0}, "width 0; needed a number >= 1"),
        ({"teacher_width": 0}, "teacher_width 0; needed a number >= 1"),
        ({"num_linear": 0}, "num_linear 0; needed a number >= 1"),
        ({"teacher_num_linear": 0}, "teacher_num_linear 0; needed a number >= 1"),
        ({"teacher_heads": "pretrained", "head_epochs": 0}, "head_epochs 0; needed a number >= 1"),
        ({"stop_heads_after": 0}, "stop_heads_after 0; needed a number >= 1"),
        ({"head_dropout": 1.5}, "head_dropout 1.5 for 2 heads"),
        (
            {"head_dropout": [0.5]},
            "head_dropout [0.5] for 2 heads; needed one number 0 to 1, or one for each",
        ),
        ({"head_dropout": [0.5, -0.1]}, "head_dropout [0.5, -0.1] for 2 heads"),
        ({"hard_weight": 0.0, "soft_weight": 0.0, "beta": 0.0}, "all weights of the student's terms are 0"),
        (
            {"hard_weight": 0.0, "soft_weight": 0.0, "stop_heads_after": 2},
            "stop_heads_after leaves no term",
        ),
        ({"head_epochs": 3}, 'head_epochs 3 is only read with teacher_heads = "pretrained"'),
        ({"detach_target": False, "target": "logits"}, "detach_target False is only read with joint"),
        ({"layouts": {"pupil": {"layer1": "bchw"}}}, "is only read with the keys student and teacher"),
        ({"layouts": {"student": {"layer1": "bchw"}}, "head": "linear"}, 'only read with head = "conv"'),
        ({"layouts": {"student": {"layer7": "bchw"}}}, "layouts name 'layer7', which is not tapped"),
        ({"layouts": {"student": {"layer1": "line"}}}, "a head with convolutions needs a map"),
    ],
)
def test_wrong_requests_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)
    assert caught.value.fix or caught.value.near or "needed" in str(caught.value)


def test_the_kl_without_detached_targets_is_of_classes() -> None:
    given = images(4) | {"targets": torch.eye(4)}
    with pytest.raises(RequestError, match="only read with joint teacher heads of classes"):
        MHKD(cnn(3, 4), cnn(4, 5), task=MultiLabel(4), example=given, detach_target=False)


def test_a_sequence_needs_a_head_without_convolutions() -> None:
    with pytest.raises(RequestError, match="a sequence; a head with convolutions") as caught:
        MHKD(encoder(6, seed=1), encoder(8, seed=2), example=texts())
    assert 'head = "linear"' in str(caught.value.fix)


def test_a_text_that_is_padding_alone_is_refused() -> None:
    given = texts()
    made = MHKD(encoder(6, seed=1), encoder(8, seed=2), example=given, head="linear", width=3)
    student, teacher = made.student_taps(given), made.teacher(given)
    given["inputs"]["attention_mask"][2] = 0
    with pytest.raises(RequestError, match="sample 2 of a batch is padding alone"):
        made.losses(student, teacher, given)


def other_classes(number: int) -> nn.Module:
    teacher = cnn(4, 5, seed=2)
    teacher.fc = nn.Linear(5, number)
    return teacher


def test_other_classes_are_refused_and_what_works_then_does() -> None:
    for settings in ({}, {"target": "logits", "soft_weight": 0.0}):
        with pytest.raises(RequestError, match=r"student \(4,\) and of the teacher \(7,\)") as caught:
            MHKD(cnn(3, 4), other_classes(7), example=images(4), width=3, **settings)
    assert "soft_weight = 0" in str(caught.value.fix)
    made = entered(MHKD(cnn(3, 4), other_classes(7), example=images(4), width=3, soft_weight=0.0))
    losses = made(images(4))
    losses.total.backward()
    assert "soft" not in losses.terms
    assert made.outputs == 4
    whole = method()
    record = Record(torch.zeros(4, 7), whole.teacher(images(4)).layers)
    with pytest.raises(RequestError, match="must have the same classes"):
        whole.losses(whole.student_taps(images(4)), record, images(4))


def test_labels_out_of_range_and_missing_ones_are_refused() -> None:
    with pytest.raises(RequestError, match="label 4 for 4 classes"):
        method()(images(4) | {"targets": torch.tensor([0, 1, 2, 4])})
    with pytest.raises(RequestError, match="the batch has no targets") as caught:
        method()({"inputs": images(4)["inputs"]})
    assert 'target = "logits"' in str(caught.value.fix)


def test_heads_that_were_never_trained_are_no_teacher() -> None:
    made = entered(method(teacher_heads="pretrained"), 1)
    with pytest.raises(RequestError, match="the teacher heads are not trained"):
        made(images(4))
    with pytest.raises(RequestError, match="the teacher heads are not trained"):
        fit(method(teacher_heads="pretrained"), dataset(16), settings=Training(epochs=1, batch_size=8))
    donor = entered(method(teacher_heads="pretrained"))
    donor(images(4), update="teacher_heads")
    made.teacher_branches.load_state_dict(donor.teacher_branches.state_dict())
    assert made(images(4)).total.isfinite()


def test_frozen_heads_stay_in_eval_mode_in_a_loop_without_enter() -> None:
    made = method(teacher_heads="pretrained")
    made(images(4), update="teacher_heads")
    before = {name: value.clone() for name, value in made.teacher_branches.state_dict().items()}
    made(images(4)).total.backward()
    after = made.teacher_branches.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(value.grad is None for value in made.teacher_branches.parameters())


def test_updates_go_by_their_names() -> None:
    with pytest.raises(RequestError, match="there is no update 'teacher_heads'; this mhkd has student"):
        method()(images(4), update="teacher_heads")
    with pytest.raises(RequestError, match="no update 'heads'; this mhkd has teacher_heads, student"):
        method(teacher_heads="pretrained")(images(4), update="heads")


def test_dropout_and_stopping_read_what_the_loop_sets() -> None:
    with pytest.raises(RequestError, match=r"reads method\.progress"):
        entered(method(head_dropout=0.5))(images(4))
    with pytest.raises(RequestError, match=r"reads method\.epoch"):
        entered(method(stop_heads_after=2))(images(4))
    assert method(head_dropout=0.5).eval()(images(4)).total.isfinite()


def test_one_cell_is_refused_and_one_sample_of_a_map_is_not() -> None:
    class Cell(nn.Module):
        """A network that ends in one cell."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 3, 3, padding=1)
            self.last = nn.Conv2d(3, 4, 8)
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.last(self.first(x).relu()).flatten(1))

    torch.manual_seed(0)
    taps = pair(["first", "last"], ["layer1", "layer2"])
    made = entered(MHKD(Cell(), cnn(4, 5, seed=2), example=images(4), taps=taps, width=3))
    with pytest.raises(RequestError, match="layer 'student last' gets one sample of a single cell") as caught:
        made(images(1))
    assert "drop_last" in str(caught.value.fix)
    assert made(images(2)).total.isfinite()
    assert made.eval()(images(1)).total.isfinite()
    assert entered(method())(images(1)).total.isfinite()


def test_records_of_another_form_are_refused() -> None:
    made = entered(method())
    student, teacher = made.student_taps(images(4)), made.teacher(images(4))
    for broken in (teacher["layer2"].mean((2, 3)), teacher["layer2"][:, :3], teacher["layer2"].long()):
        record = Record(teacher.output, {**teacher.layers, "layer2": broken})
        with pytest.raises(RequestError, match="its head was built for real numbers"):
            made.losses(student, record, images(4))
    flat = entered(method(head="linear"))
    record = Record(teacher.output, {**teacher.layers, "layer2": teacher["layer2"][:, :, :2]})
    with pytest.raises(RequestError, match="its head was built for"):
        flat.losses(student, record, images(4))


def test_features_that_are_not_finite_are_refused() -> None:
    for side in ("student", "teacher"):
        made = entered(method())
        records = {"student": made.student_taps(images(4)), "teacher": made.teacher(images(4))}
        broken = records[side]["layer2"].detach().clone()
        broken[1, 0, 0, 0] = float("nan")
        records[side].layers["layer2"] = broken
        with pytest.raises(RunError, match=f"{side} features at 'layer2' are not finite in 1 of 4 rows"):
            made.losses(*records.values(), images(4))


def test_without_beta_joint_heads_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="beta 0: the student's heads learn nothing"):
        made = method(beta=0.0)
    entered(made)(images(4)).total.backward()
    assert all(value.grad is None for value in made.branches.parameters())
    assert all(value.grad is not None for value in made.teacher_branches.parameters())


def test_heads_larger_than_the_student_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="limbeck"):
        method(width=16)
    assert "parameters, the student" in caplog.text
