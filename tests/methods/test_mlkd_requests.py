"""What MLKD refuses, and what it warns of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck import fit
from limbeck.data.dataset import ArrayDataset
from limbeck.data.loader import Loader
from limbeck.data.views import Views
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, RunError
from limbeck.methods import KD, MLKD
from limbeck.methods.combination import Combination
from limbeck.record import Record
from limbeck.task import MultiLabel
from tests.methods.tapped import CLASSES, cnn, dataset, encoder, images, texts
from tests.methods.test_mlkd import method, records, views


def pair(student: list[str], teacher: list[str]) -> dict[str, list[str]]:
    return {"student": student, "teacher": teacher}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hard_weight": -1.0}, "hard_weight -1.0; needed a number >= 0"),
        ({"correlation_weight": float("nan")}, "correlation_weight nan; needed a number >= 0"),
        ({"categorical_weight": -0.5}, "categorical_weight -0.5; needed a number >= 0"),
        ({"alignment_weight": float("inf")}, "alignment_weight inf; needed a number >= 0"),
        (
            {"correlation_weight": 0.0, "categorical_weight": 0.0, "alignment_weight": 0.0},
            "correlation_weight, categorical_weight and alignment_weight 0; needed one above 0",
        ),
        ({"correlation_temperature": 0.0}, "temperature 0.0; needed a number above 0"),
        ({"contrast_temperature": -1.0}, "temperature -1.0; needed a number above 0"),
        ({"views": 1}, "views 1; needed a whole number >= 2"),
        ({"embedding": 0}, "embedding 0; needed a whole number >= 1"),
        ({"hidden_factor": 0}, "hidden_factor 0; needed a whole number >= 1"),
        ({"linear_epochs": -1}, "linear_epochs -1; needed a whole number >= 0"),
        ({"linear_epochs": 2}, "linear_epochs 2 trains a classifier on features that were learned without"),
        ({"task": MultiLabel(CLASSES), "categorical_weight": 1.0}, "compares samples of one class"),
        ({"taps": pair(["fc.input", "layer1"], ["fc.input"])}, "mlkd reads one student layer, and 2 are"),
        ({"taps": {"pupil": ["fc.input"]}}, "needed the keys student and teacher"),
        ({"taps": pair(["fd.input"], ["fc.input"])}, "fd.input"),
        ({"taps": pair(["layer2"], ["fc.input"])}, "layer student 'layer2' gives float64 (8, 6, 4, 4)"),
        ({"taps": pair(["fc.input"], ["layer2"])}, "layer teacher 'layer2' gives float64 (8, 5, 4, 4)"),
    ],
)
def test_wrong_requests_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)


def test_a_misnamed_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(RequestError) as caught:
        method(taps=pair(["layr2"], ["fc.input"]))
    assert "layer2" in caught.value.near


def test_an_example_is_asked_for() -> None:
    with pytest.raises(RequestError, match="mlkd looks for the features of both networks with one batch"):
        MLKD(cnn(3, 4), cnn(2, 3))


class Headless(nn.Module):
    """A network whose last layer is no Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.body = cnn(3, 6)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x))


def test_a_student_that_learns_labels_has_a_classifier_or_a_layer_named() -> None:
    with pytest.raises(RequestError, match="the student Headless does not end in one Linear") as caught:
        MLKD(Headless(), cnn(2, 5), example=images(4))
    assert "taps" in caught.value.fix
    named = MLKD(Headless(), cnn(2, 5), example=images(4), taps={"student": ["body.fc.input"]})
    assert named(views(dtype=torch.float32)).total.isfinite()
    with pytest.raises(RequestError, match="trains the student's classifier, and it does not end in one"):
        MLKD(Headless(), cnn(2, 5), example=images(4), hard_weight=0.0, linear_epochs=3)


def test_sequences_of_features_are_refused() -> None:
    with pytest.raises(RequestError, match=r"layer student 'blocks.0' gives float32 \(6, 5, 4\)"):
        MLKD(encoder(4), encoder(6), example=texts(6), taps=pair(["blocks.0"], ["fc.input"]))


def test_sequences_with_one_vector_each_are_taken() -> None:
    made, batch = MLKD(encoder(4), encoder(6), example=texts(6), views=2), texts(6)
    rows = torch.arange(3).repeat_interleave(2)
    inputs = {name: value[rows] for name, value in batch["inputs"].items()}
    assert made({"inputs": inputs, "targets": rows, "index": rows}).total.isfinite()


def test_rows_that_are_no_views_are_refused() -> None:
    made = method()
    with pytest.raises(RequestError, match="6 rows are not 4 views of each sample") as caught:
        made(images(6, dtype=torch.float64))
    assert "places=V" in caught.value.fix
    with pytest.raises(
        RequestError, match=r"rows 0 to 3 of the batch .* differ in their index: \[0, 1, 2, 3\]"
    ):
        made(images(8, dtype=torch.float64))
    batch = images(8, dtype=torch.float64)
    del batch["index"]
    with pytest.raises(RequestError, match=r"differ in their labels: \[0, 1, 2, 3\]"):
        made(batch)
    stacked = views()  # all upright ones first
    order = torch.arange(16).reshape(4, 4).T.flatten()
    with pytest.raises(RequestError, match="differ in their index"):
        made({name: value[order] for name, value in stacked.items()})
    nothing = [
        Record(None, {made.tapped[side][0]: torch.zeros(0, width)})
        for side, width in zip(("student", "teacher"), made.widths, strict=True)
    ]
    with pytest.raises(RequestError, match="0 rows are not 4 views"):
        made.losses(*nothing, stacked)


def test_equal_views_are_worth_a_warning() -> None:
    made, batch = method(), views()
    batch["inputs"] = batch["inputs"][::4].repeat_interleave(4, 0)
    with pytest.warns(UserWarning, match='the 4 views of every sample are equal.*add "rotate"'):
        made(batch)
    with pytest.warns(UserWarning, match="views of every sample are equal"):
        fit(
            MLKD(cnn(3, 6), cnn(2, 5), example=images(4)),
            dataset(8),
            settings=Training(epochs=1, batch_size=8),
        )


def test_pictures_that_are_not_square_are_not_turned() -> None:
    data = ArrayDataset(torch.rand(8, 2, 8, 6), torch.zeros(8, dtype=torch.long))
    with pytest.raises(RequestError, match="rotate turns square pictures; these are 8 x 6") as caught:
        data.augment(Views(0, ["rotate"]))
    assert "data.size" in caught.value.fix
    cropped = data.augment(Views(0, ["crop"]))
    ((batch,),) = Loader(cropped, 8, seed=0, view=1, places=4)
    made = MLKD(cnn(3, 6), cnn(2, 5), example=batch)
    assert made(batch).total.isfinite()


def test_labels_are_asked_for_and_checked() -> None:
    batch = views()
    with pytest.raises(RequestError, match="label 4 for 4 classes"):
        method()({**batch, "targets": batch["targets"] + 1})
    with pytest.raises(RequestError, match=r"targets \(4,\) for 16 rows; needed one a row"):
        method()({**batch, "targets": batch["targets"][::4]})
    del batch["targets"]
    for settings in ({}, {"hard_weight": 0.0, "categorical_weight": 1.0}):
        with pytest.raises(
            RequestError, match="the label of each sample, and the batch has no targets"
        ) as caught:
            method(**settings)(batch)
        assert caught.value.fix.startswith("hard_weight = 0, categorical_weight = 0")
    assert method(hard_weight=0.0)(batch).total.isfinite()


def test_mixed_samples_are_refused() -> None:
    batch = views()
    mixed = {"targets": batch["targets"], "share": torch.ones(16)}
    with pytest.raises(RequestError, match=r"the batch mixes samples \(mixup, cutmix\)"):
        method()({**batch, "mixed": mixed})


def test_features_of_other_form_are_refused_later_too() -> None:
    made, batch = method(), views()
    student, teacher = records(made, batch)
    own, other = made.tapped["student"][0], made.tapped["teacher"][0]
    for layers, message in (
        ({own: student[own][:, :3]}, r"student features \(16, 3\); at construction they had 6 entries"),
        ({own: student[own][:12]}, "12 student features and 16 teacher features"),
        ({own: student[own].reshape(16, 2, 3)}, "needed one real vector a sample"),
        ({own: student[own].long()}, "gives int64"),
    ):
        with pytest.raises(RequestError, match=message):
            made.losses(Record(student.output, layers), teacher, batch)
    with pytest.raises(RequestError, match="is not in this record"):
        made.losses(student, Record(None, {"other": teacher[other]}), batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_teacher_features_that_are_not_finite_are_named(value: float) -> None:
    made, batch = method(), views()
    student, teacher = records(made, batch)
    teacher.layers[made.tapped["teacher"][0]][3, 1] = value
    with pytest.raises(RunError, match=r"teacher features at 'fc.input' are not finite in 1 of 16 rows"):
        made.losses(student, teacher, batch)


def test_a_method_of_one_view_is_no_part_of_the_same_combination() -> None:
    student, teacher = cnn(3, 6), cnn(2, 5)
    own = MLKD(student, teacher, example=images(4))
    with pytest.raises(RequestError, match="differ in the number of views of a batch: mlkd 4, kd 1"):
        Combination([own, KD(student, teacher)])
