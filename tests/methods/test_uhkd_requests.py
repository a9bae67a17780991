"""What UHKD refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, RunError
from limbeck.methods import UHKD
from tests.methods.tapped import cnn, encoder, images, texts
from tests.methods.test_uhkd import method


def pair(student: list[str], teacher: list[str]) -> dict[str, list[str]]:
    return {"student": student, "teacher": teacher}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "sigma 0.0; needed a number above 0"),
        ({"sigma": float("nan")}, "sigma nan; needed a number above 0"),
        ({"epsilon": -1e-8}, "epsilon -1e-08; needed a number >= 0"),
        ({"soft_weight": -1.0}, "soft_weight -1.0; needed a number >= 0"),
        ({"hard_weight": -1.0}, "hard_weight -1.0; needed a number >= 0"),
        ({"beta": -1.0}, "beta -1.0; needed a number >= 0"),
        ({"temperature": 0.0}, "temperature 0.0; needed a number above 0"),
        ({"level_weights": [1.0, 2.0]}, "level_weights [1.0, 2.0] for 3 levels; needed one for each level"),
        ({"level_weights": [1.0, -2.0, 1.0]}, "level_weights -2.0; needed a number >= 0"),
        ({"representation": "phase"}, "representation = 'phase'; needed magnitude, log_magnitude, complex"),
        ({"filter": "box"}, "filter = 'box'; needed gaussian, none"),
        ({"downsample": "resize"}, "downsample = 'resize'; needed crop, pool"),
        ({"student_path": "both"}, "student_path = 'both'; needed spectral, direct"),
        ({"normalise": "l2"}, "normalise = 'l2'; needed none, rms"),
        ({"projector": "linear"}, "projector = 'linear'; needed conv, conv_bn, mlp"),
        ({"block": 0}, "block 0 at the layers 'student layer1' (8 x 8)"),
        (
            {"block": 3},
            "block 3 at the layers 'student layer3' (2 x 2) and 'teacher layer3' (2 x 2); needed 1 to 2",
        ),
        ({"block": [2, 2]}, "block [2, 2] for 3 levels"),
        ({"taps": pair(["layer1"], ["layer1", "layer2"])}, "1 student taps and 2 teacher taps"),
        ({"taps": pair([], [])}, "needs at least one layer of each network"),
        ({"taps": pair(["layer1", "layr2"], ["layer1", "layer2"])}, "layr2"),
        ({"taps": pair(["layer1"], ["layr1"])}, "layr1"),
        ({"layouts": {"pupil": {"layer1": "bchw"}}}, "layouts of 'pupil'; needed student and teacher"),
        ({"layouts": {"student": {"layr1": "bchw"}}}, "layouts name 'layr1', which is not tapped"),
        ({"layouts": {"student": {"layer1": "bcwh"}}}, "there is no form 'bcwh'"),
        ({"layouts": {"teacher": {"layer1": "blc"}}}, "the layout blc is [B, L, C]"),
    ],
)
def test_wrong_requests_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)


def test_a_misnamed_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(RequestError) as caught:
        method(taps=pair(["layer1", "layr2"], ["layer1", "layer2"]))
    assert "layer2" in caught.value.near


class Tokens(nn.Module):
    """Tokens in a row that no square picture gives."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 3, 1)
        self.block = nn.Linear(3, 3)
        self.fc = nn.Linear(3, 4)
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)[:, : self.number]
        return self.fc(self.block(tokens).mean(1))


def test_tokens_whose_place_is_not_known_are_to_be_declared() -> None:
    taps = pair(["block"], ["layer1"])
    with pytest.raises(RequestError) as caught:
        UHKD(Tokens(15), cnn(2, 3), taps=taps, example=images(4))
    assert "layer 'student block' gives (4, 15, 3), which fits no layout" in str(caught.value)
    assert 'layouts = { student = { "block" = "blc prefix=1 grid=3x5" } }' in caught.value.fix
    layouts = {"student": {"block": "blc grid=3x5"}}
    made = UHKD(Tokens(15), cnn(2, 3), taps=taps, layouts=layouts, example=images(4))
    assert made.levels[0].size == (3, 3)
    assert made(images(4)).total.isfinite()


def test_features_of_another_rank_are_refused_later_too() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    student.layers["layer2"] = student["layer2"].flatten(2)
    with pytest.raises(RequestError, match=r"'student layer2' gives \(4, 4, 16\); the layout bchw"):
        made.losses(student, teacher, batch)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_features_with_other_channels_are_refused(side: str) -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    records = {"student": made.student_taps(batch), "teacher": made.teacher(batch)}
    records[side].layers["layer2"] = records[side]["layer2"][:, :1]
    with pytest.raises(
        RequestError, match=f"layer '{side} layer2' gives .* 1 channels; the projections were"
    ):
        made.losses(**records, batch=batch)


def test_maps_smaller_than_the_block_are_refused() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    student.layers["layer2"] = student["layer2"][:, :, :3]
    with pytest.raises(RequestError, match="a block of 4 x 4 frequencies from a spectrum of 3 x 4"):
        made.losses(student, teacher, batch)


def test_batches_of_unequal_size_are_refused() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    teacher.layers["layer2"] = teacher["layer2"][:3]
    with pytest.raises(RequestError, match=r"different numbers of samples: .*teacher layer2 3"):
        made.losses(student, teacher, batch)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_features_that_are_not_real_are_refused(dtype: torch.dtype) -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    teacher.layers["layer2"] = teacher["layer2"].to(dtype)
    with pytest.raises(RequestError, match=r"layer 'teacher layer2' holds \w+; needed real numbers"):
        made.losses(student, teacher, batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_teacher_features_that_are_not_finite_are_named(value: float) -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    teacher.layers["layer2"][1, 0, 2, 3] = value
    with pytest.raises(RunError, match=r"teacher at layer 'layer2' are not finite in 1 of 4 rows"):
        made.losses(student, teacher, batch)


def test_other_classes_need_no_soft_term() -> None:
    batch = images(4)
    teacher = cnn(2, 3, seed=2)
    teacher.fc = nn.Linear(3, 7)
    with pytest.raises(
        RequestError, match=r"student outputs \(4, 4\) and teacher outputs \(4, 7\)"
    ) as caught:
        UHKD(cnn(3, 4), teacher, example=batch)(batch)
    assert caught.value.fix.startswith("soft_weight = 0")
    found = UHKD(cnn(3, 4), teacher, example=batch, soft_weight=0.0)(batch)
    assert set(found.terms) == {"hard", "freq1", "freq2"}


def test_labels_are_asked_for_and_checked() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    with pytest.raises(RequestError, match="label 4 for 4 classes"):
        made({**batch, "targets": batch["targets"] + 1})
    del batch["targets"]
    with pytest.raises(RequestError, match="hard_weight 1 needs labels, and the batch has no targets"):
        made(batch)


class Pooled(nn.Module):
    """A layer with one value a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(x).flatten(1))


def test_one_value_a_channel_has_no_batch_statistics() -> None:
    taps = pair(["layer1"], ["layer1"])
    made = UHKD(Pooled(), Pooled(), taps=taps, example=images(4), projector="conv_bn")
    assert made(images(4)).total.isfinite()
    with pytest.raises(RequestError, match=r"one value a channel, \(1, 3, 1, 1\), enters the batch norm"):
        made(images(1))
    assert UHKD(Pooled(), Pooled(), taps=taps, example=images(4))(images(1)).total.isfinite()


def test_an_example_is_asked_for() -> None:
    with pytest.raises(RequestError, match="uhkd sizes its adaptors by one batch"):
        UHKD(cnn(3, 4), cnn(2, 3))


def lines(**settings: object) -> UHKD:
    paths, batch = ["blocks.0"], texts(4)
    return UHKD(encoder(4), encoder(6), taps=pair(paths, paths), example=batch, **settings)


def test_sequences_are_never_read_as_pictures() -> None:
    with pytest.raises(RequestError, match="fits no layout of inputs that are no pictures"):
        lines()


def test_padded_sequences_are_refused() -> None:
    made = lines(layouts={"student": {"blocks.0": "line"}, "teacher": {"blocks.0": "line"}})
    with pytest.raises(RequestError, match="is a line of tokens of which some are padding"):
        made(texts(4))


def test_a_line_has_no_frequency_in_common_with_a_map() -> None:
    layouts = {"student": {"block": "line"}}
    with pytest.raises(RequestError, match="a line of tokens has no frequency in common with a map"):
        UHKD(Tokens(16), cnn(2, 3), taps=pair(["block"], ["layer1"]), layouts=layouts, example=images(4))
