"""What SemCKD refuses, and how it trains in the engine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import fit
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, RunError
from limbeck.methods import SemCKD
from limbeck.record import Record
from limbeck.task import Classification
from tests.methods.tapped import Cnn, cnn, dataset, encoder, images, texts
from tests.methods.test_semckd import method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student": []}, "needs at least one layer of each network"),
        ({"teacher": []}, "needs at least one layer of each network"),
        ({"student": ["fc"]}, "student layer 'fc' gives (8, 4); semckd needs [B, C, H, W]"),
        ({"teacher": ["layer1", "fc.input"]}, "teacher layer 'fc.input' gives (8, 4)"),
        ({"student": ["layer1", "layer1"]}, "student layer 'layer1' is tapped twice"),
        ({"factor": 9}, "factor 9 and attention_batch 8; needed 1 <= factor"),
        ({"factor": 0}, "factor 0 and attention_batch 8"),
        ({"attention_batch": 3}, "factor 4 and attention_batch 3"),
        ({"attention_temperature": 0.0}, "attention_temperature 0.0; needed a number above 0"),
        ({"temperature": -1.0}, "temperature -1.0; needed a number above 0"),
        ({"beta": -400.0}, "beta -400.0; needed a number >= 0"),
        ({"hard_weight": -1.0}, "hard_weight -1.0; needed a number >= 0"),
        ({"soft_weight": float("nan")}, "soft_weight nan; needed a number >= 0"),
        ({"attention": "softmax"}, "needed learned, detached, equal, fixed"),
        ({"incomplete": "drop"}, "needed skip, logits, pad"),
        (
            {"incomplete": "logits", "hard_weight": 0.0, "soft_weight": 0.0},
            "needs a hard_weight or soft_weight",
        ),
        ({"attention": "fixed"}, "needs a teacher layer for each student layer, and 'layer1' has none"),
        ({"attention": "fixed", "pairs": {"layer1": "layer1"}}, "and 'layer2' has none"),
        ({"attention": "fixed", "pairs": {"layer1": "layer4"}}, "pairs name 'layer4', which is not tapped"),
        ({"attention": "fixed", "pairs": {"layer7": "layer1"}}, "pairs name 'layer7', which is not tapped"),
        ({"pairs": {"layer1": "layer1"}}, "pairs are for fixed attention, not learned"),
        ({"sequences": True}, "semckd needs [B, L, D]"),
    ],
)
def test_wrong_requests_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)


def test_the_form_of_sequences_is_said_where_maps_are_needed() -> None:
    batch = texts()
    taps = {"student": ["blocks.0"], "teacher": ["blocks.0"]}
    with pytest.raises(RequestError, match=r"sequences = true takes \[B, L, D\]"):
        SemCKD(encoder(4), encoder(6), taps=taps, example=batch)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (9, "a batch of 9 samples, and the attention was built for 8"),
        (7, "a training batch of 7 samples, and the attention was built for 8"),
    ],
)
def test_batches_of_another_size_are_refused_in_training(samples: int, message: str) -> None:
    made = method()
    with pytest.raises(RequestError, match=message):
        made(images(samples, dtype=torch.float64))


def test_a_larger_batch_is_refused_whatever_becomes_of_smaller_ones() -> None:
    for incomplete in ("logits", "pad"):
        with pytest.raises(RequestError, match="a batch of 9 samples"):
            method(incomplete=incomplete)(images(9, dtype=torch.float64))


def test_data_below_the_size_of_the_attention_are_refused_before_the_first_step() -> None:
    made = method(dtype=torch.float32)
    with pytest.raises(RequestError, match="7 samples give no batch of attention_batch = 8"):
        fit(made, dataset(7), settings=Training(epochs=1, batch_size=4))


def records(made: SemCKD) -> tuple[Record, Record, dict[str, torch.Tensor]]:
    batch = images(dtype=torch.float64)
    return made.student_taps(batch), made.teacher(batch), batch


def test_a_teacher_layer_with_gradient_is_refused() -> None:
    made = method()
    student, teacher, batch = records(made)
    teacher.layers["layer2"] = teacher["layer2"].clone().requires_grad_()
    with pytest.raises(RequestError, match="teacher layer 'layer2' requires gradient"):
        made.losses(student, teacher, batch)


def test_layers_of_different_batch_sizes_are_refused() -> None:
    made = method()
    student, teacher, batch = records(made)
    teacher.layers["layer3"] = teacher["layer3"][:4]
    with pytest.raises(RequestError, match=r"different numbers of samples: .* teacher layer3 4"):
        made.losses(student, teacher, batch)


def test_channels_other_than_those_of_the_example_are_refused() -> None:
    made = method()
    student, teacher, batch = records(made)
    student.layers["layer1"] = student["layer1"][:, :2]
    with pytest.raises(RequestError, match=r"student layer 'layer1' gives \(8, 2, 8, 8\)"):
        made.losses(student, teacher, batch)


def test_outputs_of_different_classes_are_refused() -> None:
    made = method()
    student, teacher, batch = records(made)
    teacher.output = teacher.output[:, :3]
    with pytest.raises(RequestError, match=r"\(8, 4\).*\(8, 3\)"):
        made.losses(student, teacher, batch)


def test_similarities_that_are_not_finite_stop_the_run() -> None:
    made = method()
    student, teacher, batch = records(made)
    teacher.layers["layer1"] = teacher["layer1"].clone()
    teacher.layers["layer1"][2] = float("inf")
    with pytest.raises(RunError, match="similarities at layer 'layer1' are not finite"):
        made.losses(student, teacher, batch)


def test_one_value_a_channel_has_no_batch_statistics() -> None:
    class Pooled(Cnn):
        def __init__(self) -> None:
            super().__init__([3, 4])
            self.layer2.append(nn.AdaptiveAvgPool2d(1))

    taps = {"student": ["layer2"], "teacher": ["layer2"]}
    made = SemCKD(Pooled(), Pooled(), taps=taps, example=images(1), factor=1)
    made.student.eval()  # its own batch norms see more
    with pytest.raises(RequestError, match=r"one value a channel, \(1, 4, 1, 1\), enters the projection"):
        made(images(1))


def test_labels_are_asked_for() -> None:
    batch = images(dtype=torch.float64)
    del batch["targets"]
    with pytest.raises(RequestError, match="hard_weight 1 needs labels, and the batch has no targets"):
        method()(batch)


def test_masks_of_another_length_are_refused() -> None:
    batch = texts()
    taps = {"student": ["blocks.0"], "teacher": ["blocks.0"]}
    made = SemCKD(encoder(4), encoder(6), taps=taps, example=batch, sequences=True)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    student.layers["blocks.0"] = student["blocks.0"][:, :4]
    with pytest.raises(RequestError, match=r"'blocks.0' has 4 positions, .* masks of the batch have 5"):
        made.losses(student, teacher, batch)


def fitted(samples: int, **settings: object) -> tuple[SemCKD, list[dict[str, float]]]:
    """Two epochs on tiny data in batches of 8, with proposed layers."""
    torch.manual_seed(7)
    made = SemCKD(
        cnn(4, 4, seed=1),
        cnn(6, 8, seed=2),
        task=Classification(4),
        example=images(8),
        beta=5.0,
        **settings,
    )
    done = fit(
        made,
        dataset(samples),
        dataset(16),
        Training(epochs=3, batch_size=8, learning_rate=0.05),
    )
    return made, [entry["terms"] for entry in done.history]


def test_it_trains_in_the_engine_which_leaves_smaller_batches_out() -> None:
    made, history = fitted(44)
    assert history[-1]["semckd"] < history[0]["semckd"]
    assert made.association is not None
    assert int(made.projections[0][0].layers[1].num_batches_tracked) == 3 * (44 // 8)


@pytest.mark.parametrize(
    "settings", [{"incomplete": "pad"}, {"incomplete": "logits"}, {"attention": "equal"}]
)
def test_the_engine_gives_smaller_batches_to_the_variants_that_take_them(settings: dict[str, str]) -> None:
    made, history = fitted(44, **settings)
    steps = 44 // 8 if settings.get("incomplete") == "logits" else -(-44 // 8)
    assert int(made.projections[0][0].layers[1].num_batches_tracked) == 3 * steps
    assert history[-1]["semckd"] < history[0]["semckd"]


def test_layers_are_proposed_where_none_are_named() -> None:
    made = SemCKD(cnn(3, 4), cnn(2, 3), example=images(8))
    assert len(made.tapped["student"]) == len(made.tapped["teacher"]) == 2
    assert made(images(8)).total.isfinite()
