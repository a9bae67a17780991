"""What CMKD refuses, the pairs of networks it takes as they are, and its recipe."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck import Recipe, fit
from limbeck.data.dataset import ArrayDataset
from limbeck.engine import Training
from limbeck.errors import LimbeckError, RequestError, RunError
from limbeck.losses import top_k
from limbeck.methods import CMKD
from limbeck.models import build, prepare
from limbeck.run import distill
from limbeck.task import Classification, MultiLabel, Regression
from tests.losses.test_soft import logits
from tests.methods.stored import LABELS
from tests.methods.test_cmkd import cmkd, losses


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature 0.0; needed a number above 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"rank_strength": 0.0}, "rank_strength 0.0; needed a number above 0"),
        ({"ranks": "sigmoid", "sigmoid_scale": -1.0}, "sigmoid_scale -1.0; needed a number above 0"),
        ({"difficulty_temperature": 0.0}, "difficulty_temperature 0.0; needed a number above 0"),
        ({"hard_weight": -1.0}, "hard_weight -1.0; needed a number >= 0"),
        ({"pearson_weight": -2.0}, "pearson_weight -2.0; needed a number >= 0"),
        ({"spearman_weight": float("inf")}, "spearman_weight inf; needed a number >= 0"),
        ({"intra_weight": float("nan")}, "intra_weight nan; needed a number >= 0"),
        ({"pearson_weight": 0.0, "spearman_weight": 0.0}, "needed one above 0"),
        ({"pearson_on": "ranks"}, "pearson_on = 'ranks'; needed probabilities, logits"),
        ({"spearman": "cubed"}, "needed correlation, squared"),
        ({"ranks": "sort"}, "needed projection, sigmoid"),
        ({"teacher_ranks": "none"}, "needed soft, hard"),
        ({"weighting": "hard"}, "needed complementary, inverse, fixed"),
        ({"difficulty_from": "loss"}, "needed teacher, student, label"),
        ({"pearson_on": "logits", "temperature": 4.0}, 'only read with pearson_on = "probabilities"'),
        ({"pearson_on": "logits", "tau_squared": True}, 'only read with pearson_on = "probabilities"'),
        ({"sigmoid_scale": 0.2}, 'only read with ranks = "sigmoid"'),
        ({"ranks": "sigmoid", "rank_strength": 0.3}, 'only read with ranks = "projection"'),
        ({"weighting": "fixed", "difficulty_from": "student"}, "only read with weighting"),
        ({"weighting": "fixed", "difficulty_temperature": 4.0}, "only read with weighting"),
        ({"task": Classification(2)}, "cmkd of 2 classes; it needs at least 3"),
        ({"task": MultiLabel(5)}, "classes or tokens"),
        ({"task": Regression()}, "classes or tokens"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        cmkd(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("student", "teacher", "batch", "words"),
    [
        (logits(6, 4), logits(6, 5), {"targets": LABELS}, "(6, 4) and teacher outputs (6, 5)"),
        (logits(6, 2), logits(6, 2), {"targets": LABELS.clamp(max=1)}, "cmkd of 2 classes"),
        (logits(6, 4), logits(6, 4), {"targets": LABELS + 2}, "label 5 for 4 classes"),
        (logits(6, 4), logits(6, 4), {"targets": LABELS[:5]}, "(5,)"),
        (logits(6, 4), logits(6, 4), {}, "hard_weight 1 needs labels, and the batch has no targets"),
        (logits(6, 4, 3, 3), logits(6, 4, 3, 3), {"targets": LABELS}, "classes need 2 axes"),
        (logits(6, 4)[:, 0], logits(6, 4)[:, 0], {"targets": LABELS}, "classes need 2 axes"),
        (logits(6, 4), top_k(logits(6, 4), 2, [4.0]), {"targets": LABELS}, "keep all logits"),
    ],
)
def test_wrong_batches_are_refused(
    student: Tensor, teacher: Tensor, batch: dict[str, object], words: str
) -> None:
    with pytest.raises(LimbeckError) as caught:
        losses(cmkd(), student, teacher, **batch)
    assert words in str(caught.value)


def test_difficulty_by_the_label_needs_each_samples_own() -> None:
    method = cmkd(hard_weight=0.0, difficulty_from="label")
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    with pytest.raises(RequestError, match='"label" needs labels, and the batch has no targets'):
        losses(method, student, teacher)
    with pytest.raises(RequestError, match=r"targets \(5,\)"):
        losses(method, student, teacher, targets=LABELS[:5])
    mixed = {"targets": LABELS.flip(0), "share": torch.full((6,), 0.3)}
    with pytest.raises(RequestError, match="samples are mixed"):
        losses(method, student, teacher, targets=LABELS, mixed=mixed)
    assert losses(cmkd(), student, teacher, targets=LABELS.abs(), mixed=mixed).total.isfinite()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_named_in_every_step(value: float) -> None:
    method, good, bad = cmkd(), logits(6, 4), logits(6, 4, seed=1)
    bad[2, 1] = value
    losses(method, good, good, targets=LABELS)
    for _ in range(2):
        with pytest.raises(RunError, match="teacher outputs are not finite in 1 of 6 rows, first in row 2"):
            losses(method, good, bad, targets=LABELS)
        with pytest.raises(RunError, match="student outputs are not finite in 1 of 6 rows") as caught:
            losses(method, bad, good, targets=LABELS)
    assert caught.value.fix == "a lower learning rate, or clipped gradients"


def test_probabilities_in_place_of_logits_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="teacher seems to return probabilities"):
        losses(cmkd(), logits(6, 4), logits(6, 4).softmax(1), targets=LABELS)


def test_it_takes_no_layers() -> None:
    taps = {"student": ["0"], "teacher": ["0"]}
    with pytest.raises(TypeError, match="taps"):
        CMKD(nn.Identity(), nn.Identity(), taps=taps)
    changes = ["method.taps={student=['layer9'], teacher=['layer3']}"]
    with pytest.raises(RequestError, match="cmkd reads no layers") as caught:
        distill(Recipe.load("fashion-cmkd", changes), dry_run=True)
    assert caught.value.fix == "leave taps out"


#: Options of timm's networks, which take pictures of one size: 32 here.
LIBRARY: dict[str, dict[str, int]] = {
    "timm:vit_tiny_patch16_224": {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "timm:mixer_s16_224": {},
}


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("resnet20", "resnet8"),
        ("wrn16-1", "shufflenetv2"),
        ("resnet8", "timm:vit_tiny_patch16_224"),
        ("timm:vit_tiny_patch16_224", "mobilenetv2"),
        ("timm:mixer_s16_224", "resnet8"),
    ],
)
def test_pairs_of_networks_that_have_nothing_in_common(
    teacher: str, student: str, channels: int, size: int
) -> None:
    if "timm" in teacher + student:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    inputs = torch.rand(8, channels, size, size)
    networks = [
        prepare(spec, num_classes=5, inputs=inputs, options=LIBRARY[spec], size=32).network
        if spec in LIBRARY
        else prepare(spec, num_classes=5, inputs=inputs).network
        for spec in (student, teacher)
    ]
    method = CMKD(*networks, task=Classification(5))
    data = ArrayDataset(inputs, torch.arange(8) % 5)
    done = fit(method, data, settings=Training(epochs=2, batch_size=4))
    assert {"hard", "pearson", "spearman"} <= set(done.history[-1]["terms"])


def test_pictures_of_odd_sides() -> None:
    torch.manual_seed(0)
    student, teacher = (
        build(spec, num_classes=5, channels=3, size=(27, 31)) for spec in ("resnet8", "resnet14")
    )
    found = CMKD(student, teacher)((torch.rand(3, 3, 27, 31), torch.tensor([0, 4, 1])))
    found.total.backward()
    assert found.total.isfinite()
