"""What LSHFM refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import fit
from limbeck.data.dataset import ArrayDataset
from limbeck.data.mixing import Mixing
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, RunError
from limbeck.losses import hash_bias
from limbeck.methods import KD, LSHFM
from limbeck.record import Record
from limbeck.task import Tokens
from tests.methods.tapped import CLASSES, cnn, dataset, encoder, images, texts
from tests.methods.test_lshfm import TASK, method, records


def pair(student: list[str], teacher: list[str]) -> dict[str, list[str]]:
    return {"student": student, "teacher": teacher}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "lshl3"}, "variant = 'lshl3'; needed lshl2, lshl2_s"),
        ({"bias": "half"}, "bias = 'half'; needed median, mean, zero"),
        ({"beta": -1.0}, "beta -1.0; needed a number >= 0"),
        ({"beta": float("nan")}, "beta nan; needed a number >= 0"),
        ({"hard_weight": -1.0}, "hard_weight -1.0; needed a number >= 0"),
        ({"soft_weight": -1.0}, "soft_weight -1.0; needed a number >= 0"),
        ({"temperature": 0.0}, "temperature 0.0; needed a number above 0"),
        ({"num_hashes": 0}, "num_hashes 0; needed at least 1"),
        ({"num_hashes": -3}, "num_hashes -3; needed at least 1"),
        ({"std": 0.0}, "std 0.0; needed a number above 0"),
        ({"std": float("nan")}, "std nan; needed a number above 0"),
        ({"std": 0.1, "variant": "l2"}, "std 0.1 with the variant l2, which has no hyperplanes"),
        ({"num_hashes": 8, "variant": "l1"}, "num_hashes 8 with the variant l1, which has no hyperplanes"),
        ({"average_epochs": -1}, "average_epochs -1; needed a number >= 0"),
        ({"align_beta": 1.0}, "align_beta and align_statistics are of the first of two stages"),
        ({"align_statistics": True}, "align_beta and align_statistics are of the first of two stages"),
        ({"two_stages": True, "align_beta": -1.0}, "align_beta -1.0; needed a number >= 0"),
        ({"own": 5, "two_stages": True, "force_embedding": False}, "two_stages trains an embedding first"),
        ({"taps": pair(["fc.inputs"], ["fc.input"])}, "no layer 'fc.inputs'"),
        ({"taps": pair(["fc.input"], ["layr2"])}, "no layer 'layr2'"),
        (
            {"taps": pair(["fc.input", "layer1"], ["fc.input"])},
            "lshfm reads one student layer, and 2 are named",
        ),
        ({"taps": {"pupil": ["fc.input"]}}, "needed the keys student and teacher"),
        ({"taps": pair(["layer2"], ["fc.input"])}, "layer student 'layer2' gives float32 (8, 3, 4, 4)"),
        ({"taps": pair(["fc.input"], ["layer2"])}, "layer teacher 'layer2' gives float32 (8, 5, 4, 4)"),
        ({"taps": pair(["fc"], ["fc.input"])}, "student layer 'fc' is not what enters the classifier 'fc'"),
    ],
)
def test_wrong_requests_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)


def test_a_misnamed_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(RequestError) as caught:
        method(taps=pair(["fc.input"], ["layr2"]))
    assert "layer2" in caught.value.near


def test_an_example_is_asked_for() -> None:
    with pytest.raises(RequestError, match="lshfm looks for the features of both networks with one batch"):
        LSHFM(cnn(3, 4), cnn(2, 3))


def test_other_classes_leave_the_features_to_mimic() -> None:
    teacher = cnn(4, 5, seed=2)
    teacher.fc = nn.Linear(5, 7)
    given: dict[str, Any] = {"task": TASK, "example": images(8)}
    with pytest.raises(RequestError, match="the student 4 outputs and the teacher 7 outputs") as caught:
        LSHFM(cnn(3, 3), teacher, variant="lshl2_s", **given)
    assert caught.value.fix.startswith('variant = "lshl2"')
    with pytest.raises(RequestError, match="soft_weight 1 compares outputs") as caught:
        LSHFM(cnn(3, 3), teacher, soft_weight=1.0, **given)
    assert caught.value.fix.startswith("soft_weight = 0")


def test_the_whole_training_set_is_asked_for_before_the_first_step() -> None:
    made = method(begun=False)
    for _ in range(2):
        with pytest.raises(
            RequestError, match='bias "median" is taken over the whole training set'
        ) as caught:
            made(images(8))
    assert "stage.begin(data)" in caught.value.fix
    made.stages()[0].begin(dataset(20))
    assert made(images(8)).total.isfinite()
    assert method(begun=False, bias="zero").stages()[0].begin is None


def test_no_sample_has_no_median() -> None:
    with pytest.raises(RequestError, match="no sample"):
        method(begun=False).stages()[0].begin(ArrayDataset(torch.zeros(0, 2, 8, 8), torch.zeros(0).long()))
    with pytest.raises(RequestError, match="the median over no sample"):
        hash_bias(torch.zeros(0, 3), torch.zeros(4, 3), "median")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_teacher_features_that_are_not_finite_are_named(value: float) -> None:
    made = method(own=5)
    student, teacher, batch = records(made)
    teacher["fc.input"][2, 1] = value
    with pytest.raises(RunError, match=r"teacher features at 'fc.input' are not finite in 1 of 6 rows"):
        made.losses(student, teacher, batch)
    broken = method(begun=False)
    broken.teacher.model.layer2[0].weight.data[0] = value
    with pytest.raises(RunError, match=r"teacher features at .fc\.input. are not finite"):
        broken.stages()[0].begin(dataset(20))


@pytest.mark.parametrize(
    ("side", "value", "message"),
    [
        ("student", torch.rand(6, 3, 2, 2), r"layer student 'fc.input' gives float32 \(6, 3, 2, 2\)"),
        ("teacher", torch.rand(6, 5, 2), r"layer teacher 'fc.input' gives float32 \(6, 5, 2\)"),
        ("teacher", torch.ones(6, 5).long(), "gives int64"),
        ("student", torch.rand(6, 4), r"student features \(6, 4\); at construction they had 3 entries"),
        ("teacher", torch.rand(6, 4), r"student features \(6, 5\) and teacher features \(6, 4\)"),
        ("teacher", torch.rand(5, 5), r"student features \(6, 5\) and teacher features \(5, 5\)"),
    ],
)
def test_features_of_another_form_are_refused(side: str, value: Tensor, message: str) -> None:
    made = method()
    student, teacher, batch = records(made)
    {"student": student, "teacher": teacher}[side].layers["fc.input"] = value
    with pytest.raises(RequestError, match=message):
        made.losses(student, teacher, batch)


def test_features_of_one_cell_are_flattened() -> None:
    made = method()
    student, teacher, batch = records(made)
    plain = made.losses(student, teacher, batch)
    teacher.layers["fc.input"] = teacher["fc.input"][:, :, None, None]
    assert torch.equal(made.losses(student, teacher, batch).total, plain.total)


def test_labels_are_asked_for_and_checked() -> None:
    made = method()
    student, teacher, batch = records(made)
    with pytest.raises(RequestError, match="label 4 for 4 classes"):
        made.losses(student, teacher, {**batch, "targets": batch["targets"] + 1})
    del batch["targets"]
    with pytest.raises(RequestError, match="hard_weight 1 needs labels") as caught:
        made.losses(student, teacher, batch)
    assert caught.value.fix.startswith("hard_weight = 0")
    with pytest.raises(RequestError, match="lshl2_s needs labels and the teacher's outputs"):
        method(variant="lshl2_s", hard_weight=0.0).losses(student, teacher, batch)


def test_the_teachers_outputs_are_asked_for() -> None:
    made = method()
    student, teacher, batch = records(made)
    with pytest.raises(RequestError, match="lshl2_s needs the teacher's outputs"):
        made.losses(student, Record(None, teacher.layers), batch)


def test_mixed_samples_have_no_one_class() -> None:
    data = dataset(24).mix(Mixing("mixup", 1.0))
    with pytest.raises(RequestError, match="these samples are mixed") as caught:
        fit(method(begun=False), data, settings=Training(epochs=1, batch_size=8))
    assert caught.value.fix.startswith('variant = "lshl2"')
    done = fit(method(begun=False, variant="lshl2"), data, settings=Training(epochs=1, batch_size=8))
    assert done.history


class Convolved(nn.Module):
    """Ends in a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, width, 3), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(self.body(x))).flatten(1)


def test_networks_that_do_not_end_in_a_linear_need_a_layer_named() -> None:
    given: dict[str, Any] = {"task": TASK, "example": images(8)}
    with pytest.raises(RequestError, match="the student Convolved does not end in one Linear") as caught:
        LSHFM(Convolved(5), cnn(4, 5), **given)
    assert 'taps = { student = ["pool"] }' in caught.value.fix
    with pytest.raises(RequestError, match="the teacher Convolved does not end in one Linear"):
        LSHFM(cnn(4, 5), Convolved(5), **given)
    taps = pair(["pool"], ["pool"])
    made = LSHFM(Convolved(5), Convolved(5), taps=taps, std=0.1, bias="zero", **given)
    assert made(images(8)).total.isfinite()
    with pytest.raises(RequestError, match="the teacher has none") as caught:
        LSHFM(Convolved(5), Convolved(5), taps=taps, **given)
    assert caught.value.fix == "std = 0.06"
    with pytest.raises(RequestError, match="before which an embedding could stand"):
        LSHFM(Convolved(4), Convolved(5), taps=taps, std=0.1, **given)


def test_a_teacher_whose_classifier_is_zero() -> None:
    teacher = cnn(4, 5)
    nn.init.zeros_(teacher.fc.weight)
    with pytest.raises(RequestError, match=r"std of the teacher.s classifier 0\.0; needed a number above 0"):
        LSHFM(cnn(3, 3), teacher, task=TASK, example=images(8))


def test_one_student_has_one_embedding() -> None:
    made = method()
    with pytest.raises(RequestError, match="the student has the embedding of another lshfm in it"):
        LSHFM(made.student, cnn(3, 7), task=TASK, example=images(8))


def test_a_classifier_that_others_read_is_not_replaced() -> None:
    student, teacher = cnn(3, 3, seed=1), cnn(4, 5, seed=2)
    first = LSHFM(student, cnn(4, 3), example=images(8))  # of equal width: it reads fc.input
    with pytest.raises(RequestError, match="classifier 'fc' has hooks or parametrizations"):
        LSHFM(student, teacher, example=images(8))
    assert isinstance(first.student.fc, nn.Linear)
    KD(student, teacher)  # reads no layer


def test_sequences_of_tokens_are_refused() -> None:
    with pytest.raises(RequestError):
        LSHFM(encoder(4), encoder(6), task=Tokens(), example=texts(4))


def test_texts_with_one_class_each_are_taken() -> None:
    made = LSHFM(encoder(4), encoder(6), task=TASK, example=texts(6), bias="zero")
    assert made.widths == (4, 6)
    assert made(texts(6)).total.isfinite()
