"""What UniKD refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError, RunError
from limbeck.losses import top_k
from limbeck.methods import UniKD
from limbeck.record import Record
from limbeck.task import MultiLabel
from tests.methods.tapped import cnn, encoder, images, texts
from tests.methods.test_unikd import MAPS, batch, method


def pair(student: list[str], teacher: list[str]) -> dict[str, list[str]]:
    return {"student": student, "teacher": teacher}


TWO, LAST = ["layer1", "fc.input"], {"teacher_feature": "last_stage"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_feature": "middle"}, "teacher_feature = 'middle'; needed aff, first_stage, last_stage"),
        ({"constraint": "mse"}, "constraint = 'mse'; needed kl, gaussian, features"),
        ({"logits": "mlld"}, "logits = 'mlld'; needed kd, dkd, none"),
        ({"temperature": 0.0}, "temperature 0.0; needed a number above 0"),
        ({"feature_temperature": -1.0}, "temperature -1.0; needed a number above 0"),
        ({"warmup": 0}, "warmup 0; needed a number of epochs above 0"),
        ({"hard_weight": -1.0}, "hard_weight -1.0; needed a number >= 0"),
        ({"logits_weight": float("inf")}, "logits_weight inf; needed a number >= 0"),
        ({"feature_weight": -1.0}, "feature_weight -1.0; needed a number >= 0"),
        ({"supp_weight": float("nan")}, "supp_weight nan; needed a number >= 0"),
        ({"target_weight": -1.0}, "target_weight -1.0; needed a number >= 0"),
        ({"non_target_weight": 2.0}, 'non_target_weight 2.0 is only read with logits = "dkd"'),
        ({"max_channels": 0}, "max_channels 0; needed at least 1"),
        ({"max_channels": 32, **LAST}, "max_channels 32 is only read with a fusion"),
        ({"sizes": [1, 2], **LAST}, "sizes [1, 2] is only read with a fusion"),
        ({"feature_weight": 0.0, "supp_weight": 0.0}, "nothing trains on the layers"),
        ({"constraint": "features"}, "a map that trains to be close to another one collapses"),
        ({**MAPS, **LAST, "supp_weight": 1.0}, "predicts no distribution, so there is no supp"),
        ({**MAPS, **LAST, "detach_targets": True}, "is only read with predicted distributions"),
        ({"clamp_log_variance": True, "sample": False}, "is only read with log variances"),
        ({"detach_targets": True, "supp_weight": 0.0}, "nothing trains the head of the teacher"),
        ({"width": 5}, "width 5 for 4 classes; supp ties z to the outputs"),
        ({"width": 1, "supp_weight": 0.0}, "width 1; a distribution needs at least 2 values"),
        ({"sizes": [1, 2]}, "sizes [1, 2] for 4 levels; needed one for each level"),
        ({"sizes": [1, 2, 4, 0]}, "needed a side >= 1"),
        ({"sizes": [1, 2, 4, [8, 8, 8]]}, "needed a side >= 1"),
        ({"taps": pair(["fc.input"], ["fc.input"])}, "1 level; a fusion needs at least 2"),
        ({"taps": pair(TWO, ["layer1", *TWO[:1], "fc.input"])}, "2 student taps and 3 teacher taps"),
        ({"taps": pair(TWO, TWO), **LAST}, '"last_stage" reads one layer of each network'),
        ({"taps": {"student": TWO}}, "taps of ['student']; needed student and teacher"),
        ({"taps": pair([], [])}, "0 level"),
        ({"taps": pair(["layr1", "fc.input"], TWO)}, "layr1"),
        ({"taps": pair(TWO, ["layr1", "fc.input"])}, "layr1"),
        ({"taps": pair(TWO, TWO), "layouts": {"pupil": {}}}, "layouts of 'pupil'"),
        ({"layouts": {"student": {"layr1": "bchw"}}}, "layouts name 'layr1', which is not tapped"),
        ({"layouts": {"student": {"layer1": "bcwh"}}}, "there is no form 'bcwh'"),
    ],
    ids=str,
)
def test_wrong_requests_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)


def test_a_misnamed_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(RequestError) as caught:
        method(taps=pair(TWO, ["layr1", "fc.input"]))
    assert "layer1" in caught.value.near


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_value_before_a_relu_that_is_asked_for_must_be_there(side: str) -> None:
    networks = {"student": cnn(3, 4, seed=1), "teacher": cnn(2, 3, seed=2)}
    networks[side].layer1[2].inplace = True
    with pytest.raises(RequestError, match=f"layer 'layer1' of the {side} is not made by a ReLU") as caught:
        UniKD(**networks, example=images(), **{f"{side}_preact": True})
    assert f"{side}_preact = false" in caught.value.fix


class Headless(nn.Module):
    """A stage, another, a mean: no classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(2, 4, 3, 2), nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer2(self.layer1(x)).mean((2, 3))


def test_a_network_without_a_classifier_needs_its_layers_named() -> None:
    with pytest.raises(RequestError, match="the student Headless does not end in one Linear"):
        UniKD(Headless(), cnn(2, 3), example=images())
    taps = pair(["layer1", "layer2"], TWO)
    assert UniKD(Headless(), cnn(2, 3), taps=taps, example=images())(images()).total.isfinite()


def records(made: UniKD) -> dict[str, Record]:
    given = batch()
    return {"student": made.student_taps(given), "teacher": made.teacher(given)}


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_features_of_another_rank_or_width_are_refused_later_too(side: str) -> None:
    made = method(teacher_preact=False)
    said = records(made)
    said[side].layers["layer2"] = said[side]["layer2"].flatten(2)
    with pytest.raises(RequestError, match=rf"'{side} layer2' gives .*; the layout bchw"):
        made.losses(**said, batch=batch())
    said = records(made)
    said[side].layers["layer2"] = said[side]["layer2"][:, :1]
    with pytest.raises(RequestError, match=f"layer '{side} layer2' gives .* 1 channels"):
        made.losses(**said, batch=batch())


def test_a_shared_head_has_one_width() -> None:
    made = method(**LAST)
    said = records(made)
    said["teacher"].layers["layer3"] = said["teacher"]["layer3"][:, :4]
    with pytest.raises(RequestError, match=r"layer 'teacher layer3' gives .* 4 channels"):
        made.losses(**said, batch=batch())


def test_batches_of_unequal_size_are_refused() -> None:
    made = method(teacher_preact=False)
    said = records(made)
    said["teacher"].layers["layer2"] = said["teacher"]["layer2"][:3]
    with pytest.raises(RequestError, match=r"different numbers of samples: .*teacher layer2 3"):
        made.losses(**said, batch=batch())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_teacher_features_that_are_not_finite_are_named(value: float) -> None:
    made = method(teacher_preact=False)
    said = records(made)
    said["teacher"].layers["layer2"][1, 0, 2, 3] = value
    with pytest.raises(RunError, match=r"teacher at layer 'layer2' are not finite in 1 of 4 rows"):
        made.losses(**said, batch=batch())


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_log_variances_that_are_not_finite_are_named(side: str) -> None:
    made = method()
    head = made.heads.prediction if side == "student" else made.heads.teacher_prediction
    with torch.no_grad():
        head.log_variance.bias[0] = float("inf")
    with pytest.raises(RunError, match=f"log variances of the {side} are not finite"):
        made(batch())


def test_other_classes_need_terms_of_layers_alone() -> None:
    teacher = cnn(2, 3, seed=2)
    teacher.fc = nn.Linear(3, 7)
    with pytest.raises(RequestError, match="gives 4 outputs and the teacher 7") as caught:
        UniKD(cnn(3, 4), teacher, example=images())
    assert caught.value.fix.startswith('logits = "none", supp_weight = 0')
    made = UniKD(cnn(3, 4), teacher, example=images(), logits="none", supp_weight=0.0)
    assert set(made(images()).terms) == {"hard", "feature"}
    assert made.heads.prediction.mean.out_features == 4


def test_outputs_that_are_no_classes_have_no_supp() -> None:
    given = {**images(), "targets": torch.ones(8, 4)}
    with pytest.raises(RequestError, match="supp and dkd are for classes, and the outputs are labels"):
        UniKD(cnn(3, 4), cnn(2, 3), task=MultiLabel(4), example=given)


def test_labels_are_asked_for_and_checked() -> None:
    made, given = method(), batch()
    with pytest.raises(RequestError, match="label 4 for 4 classes"):
        made({**given, "targets": given["targets"] + 1})
    del given["targets"]
    with pytest.raises(RequestError, match="hard_weight 1 needs labels, and the batch has no targets"):
        made(given)
    with pytest.raises(RequestError, match='logits = "dkd" needs labels, and the batch has no targets'):
        method(logits="dkd", hard_weight=0.0)(given)


def test_the_ramp_needs_an_epoch_from_one() -> None:
    made = UniKD(cnn(3, 4), cnn(2, 3), example=images(), logits="dkd")
    with pytest.raises(RequestError, match=r"reads method\.epoch, which the loop has not set"):
        made(images())
    made.epoch = 0
    with pytest.raises(RequestError, match="epoch 0; the ramp of dkd counts epochs from 1"):
        made(images())


@pytest.mark.parametrize("noise", [{"student": torch.zeros(4, 4)}, {"student": torch.zeros(4, 3)}, {}])
def test_noise_of_another_shape_is_refused(noise: dict[str, torch.Tensor]) -> None:
    with pytest.raises(RequestError, match=r"the batch gives noise .* for the .*; needed \(4, 4\)"):
        method()({**batch(), "noise": noise})


def test_the_largest_outputs_of_a_teacher_are_not_enough_for_supp_and_dkd() -> None:
    for settings in ({}, {"logits": "dkd", "supp_weight": 0.0}):
        made = method(**settings)
        said = records(made)
        said["teacher"].output = top_k(said["teacher"].output, 2, temperatures=(4.0,))
        with pytest.raises(RequestError, match="the teacher gave its largest alone"):
            made.losses(**said, batch=batch())


def test_an_example_is_asked_for() -> None:
    with pytest.raises(RequestError, match="unikd sizes its heads by one batch"):
        UniKD(cnn(3, 4), cnn(2, 3))


def test_masks_of_another_length_are_refused() -> None:
    paths, given = ["blocks.0", "fc.input"], texts(4)
    made = UniKD(encoder(4), encoder(6), taps=pair(paths, paths), example=given)
    with pytest.raises(RequestError, match="has 5 positions, and the masks of the batch have 6"):
        made.heads(
            made.student_taps(given),
            made.teacher(given),
            {**given, "inputs": {}, "mask": torch.ones(4, 6)},
            look=True,
        )
