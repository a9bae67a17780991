"""LSHFM: its terms, the bias, stages, and what the paper promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import fit
from limbeck.data.dataset import ArrayDataset
from limbeck.engine.settings import Machine, Training
from limbeck.losses import hash_bias, hash_values, softened_divergence
from limbeck.methods import LSHFM, Plain
from limbeck.record import Record
from limbeck.task import Classification
from tests.methods import slow_lshfm as slow
from tests.methods import slow_mlkd
from tests.methods.tapped import CLASSES, cnn, dataset, images

TASK = Classification(CLASSES)


def method(*, own: int = 3, other: int = 5, begun: bool = True, **settings: Any) -> LSHFM:
    """On networks whose last widths are `own` and `other`."""
    student, teacher = cnn(3, own, seed=1), cnn(4, other, seed=2)
    torch.manual_seed(3)
    made = LSHFM(student, teacher, task=settings.pop("task", TASK), example=images(8), **settings)
    stage = made.stages()[0]
    if begun and stage.begin is not None:
        stage.begin(dataset(20))
    return made


def records(made: LSHFM, samples: int = 6, seed: int = 0) -> tuple[Record, Record, dict[str, Tensor]]:
    """What both networks might have said of a batch: features and logits at random."""
    generator = torch.Generator().manual_seed(seed)
    own, other = (torch.rand(samples, width, generator=generator) for width in made.widths)
    logits = torch.randn(2, samples, CLASSES, generator=generator)
    batch = {"inputs": own, "targets": torch.arange(samples) % CLASSES}
    return Record(logits[0], {"fc.input": own}), Record(logits[1], {"fc.input": other}), batch


# -- against plain loops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize("variant", ["lshl2", "lshl2_s", "lsh", "lsh_s", "l2", None])
def test_terms_are_those_of_plain_loops(variant: str | None, samples: int) -> None:
    made = method(own=5, variant=variant)
    student, teacher, batch = records(made, samples)
    batch["targets"][:1] = teacher.output[:1].argmax(1)
    found = made.losses(student, teacher, batch)
    own, other = student["fc.input"].tolist(), teacher["fc.input"].tolist()
    weight, bias = made.hash_weight.tolist(), made.hash_bias.tolist()
    rows = {"feature": slow.squares(own, other)}
    if weight:
        rows["hash"] = slow.bit_errors(own, other, weight, bias)
    wanted = {"hash"} if variant in ("lsh", "lsh_s") else {"feature"} if variant == "l2" else set(rows)
    assert set(found.terms) == {*wanted, "hard"}
    for name in wanted:
        if variant in ("lshl2_s", "lsh_s", None):
            expected = slow.masked_mean(rows[name], teacher.output.tolist(), batch["targets"].tolist())
        else:
            expected = sum(rows[name]) / samples
        assert float(found.terms[name]) == pytest.approx(expected, rel=1e-5)
        assert found.weights[name] == 6.0


@pytest.mark.parametrize("variant", ["l1", "l2_norm", "hash_l1", "hash_l2"])
def test_comparisons(variant: str) -> None:
    made = method(own=5, variant=variant)
    student, teacher, batch = records(made)
    found = made.losses(student, teacher, batch)
    own, other = student["fc.input"], teacher["fc.input"]
    unit = own / own.norm(dim=1, keepdim=True) - other / other.norm(dim=1, keepdim=True)
    between = (own - other) @ made.hash_weight.T
    expected = {
        "l1": ("feature", (own - other).abs().mean()),
        "l2_norm": ("feature", unit.square().mean()),
        "hash_l1": ("hash", between.abs().mean()),
        "hash_l2": ("hash", between.square().mean()),
    }
    name, value = expected[variant]
    assert set(found.terms) == {name, "hard"}
    assert float(found.terms[name]) == pytest.approx(float(value), rel=1e-4)


def test_notes_are_those_of_plain_loops() -> None:
    made = method(own=5)
    student, teacher, batch = records(made)
    notes = made.losses(student, teacher, batch).notes
    pairs = list(zip(student["fc.input"].tolist(), teacher["fc.input"].tolist(), strict=True))
    weight, bias = made.hash_weight.tolist(), made.hash_bias.tolist()
    same = []
    for pair in pairs:
        own, other = slow.hash_rows(pair, weight, bias)
        same += [(one > 0) == (two > 0) for one, two in zip(own, other, strict=True)]
    expected = {
        "cosine": [slow_mlkd.cosine(*pair) for pair in pairs],
        "norm_ratio": [math.hypot(*own) / math.hypot(*other) for own, other in pairs],
        "bit_agreement": same,
    }
    for name, values in expected.items():
        assert float(notes[name]) == pytest.approx(sum(values) / len(values), rel=1e-5), name


def test_the_soft_term_is_that_of_plain_distillation() -> None:
    made = method(own=5, soft_weight=0.5, temperature=2.0)
    student, teacher, batch = records(made)
    found = made.losses(student, teacher, batch)
    expected = softened_divergence(student.output, teacher.output, 2.0)
    assert torch.equal(found.terms["soft"], expected)
    assert found.weights["soft"] == 0.5


# -- samples and labels -----------------------------------------------------------------------------------


def test_a_teacher_that_is_always_wrong_teaches_nothing_and_breaks_nothing() -> None:
    made = method(own=5, hard_weight=0.0)
    student, teacher, batch = records(made)
    batch["targets"] = (teacher.output.argmax(1) + 1) % CLASSES
    features = student["fc.input"].requires_grad_()
    found = made.losses(student, teacher, batch)
    found.total.backward()
    assert float(found.total.detach()) == 0
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert float(found.notes["mimicked"]) == 0


@pytest.mark.parametrize(("variant", "share"), [(None, 1.0), ("lshl2_s", 0.5)])
def test_samples_without_a_label(variant: str | None, share: float) -> None:
    made = method(own=5, variant=variant)
    student, teacher, batch = records(made)
    batch["targets"] = teacher.output.argmax(1).where(torch.arange(6) < 3, -1)
    assert float(made.losses(student, teacher, batch).notes["mimicked"]) == share


def test_without_any_label() -> None:
    made = method(own=5, hard_weight=0.0)
    student, teacher, batch = records(made)
    labelled = method(own=5, hard_weight=0.0, variant="lshl2").losses(student, teacher, batch)
    del batch["targets"]
    found = made.losses(student, teacher, batch)
    assert torch.equal(found.total, labelled.total)
    assert "mimicked" not in found.notes


def test_a_class_absent_from_the_batch_and_a_batch_of_one() -> None:
    made = method()
    whole = images(8)
    some = {key: value[whole["targets"] != 2] for key, value in whole.items()}
    assert made(some).total.isfinite()
    made.eval()
    assert made({key: value[:1] for key, value in whole.items()}).total.isfinite()


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_constant_features(value: float) -> None:
    made = method(own=5)
    student, teacher, batch = records(made)
    for record in (student, teacher):
        record.layers["fc.input"] = torch.full((6, 5), value, requires_grad=record is student)
    found = made.losses(student, teacher, batch)
    found.total.backward()
    assert found.total.isfinite()
    assert student["fc.input"].grad.isfinite().all()
    assert all(note.isfinite() for note in found.notes.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    made = method(own=5, std=30.0)  # hash values beyond what half precision tells apart
    student, teacher, batch = records(made)
    for record in (student, teacher):
        record.layers["fc.input"] = record["fc.input"].to(dtype)
    half = made.losses(student, teacher, batch)
    for record in (student, teacher):
        record.layers["fc.input"] = record["fc.input"].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full = made.losses(student, teacher, batch)
    for name in ("feature", "hash"):
        assert half.terms[name].dtype == torch.float32
        assert torch.equal(half.terms[name], full.terms[name])


def test_micro_batches_equal_one_batch_where_every_sample_counts() -> None:
    def trained(machine: Machine) -> LSHFM:
        # Not the median, which puts a sample on each hyperplane: rounding decides its bit there.
        made = LSHFM(
            plain_network(3, seed=1),
            plain_network(5, seed=2),
            task=TASK,
            example=images(8),
            variant="lshl2",
            bias="mean",
        )
        made.double()
        assert made.teacher is not None
        made.teacher.model.double()
        pixels = dataset(22, labelled=15).batch(range(22))
        data = ArrayDataset(pixels["inputs"].double(), pixels["targets"])
        settings = Training(epochs=2, batch_size=8, learning_rate=0.01)
        fit(made, data, settings=settings, machine=machine)
        return made

    torch.manual_seed(0)
    whole = trained(Machine())
    torch.manual_seed(0)
    cut = trained(Machine(micro_batch=3))
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, cut.state_dict()[name], atol=1e-9), name


def plain_network(width: int, seed: int) -> nn.Module:
    """Without batch statistics."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, width), nn.ReLU(), nn.Linear(width, CLASSES))


# -- the promises -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.01, 3.0, 1000.0])
def test_the_size_of_a_feature_is_free(factor: float) -> None:
    made = method(own=5, bias="zero")
    student, teacher, batch = records(made)
    one = made.losses(student, teacher, batch).notes
    student.layers["fc.input"] = student["fc.input"] * factor
    other = made.losses(student, teacher, batch).notes
    assert torch.equal(one["bit_agreement"], other["bit_agreement"])
    assert torch.allclose(one["cosine"], other["cosine"])
    assert float(other["norm_ratio"]) == pytest.approx(factor * float(one["norm_ratio"]), rel=1e-4)


def test_bits_are_balanced_over_the_training_set() -> None:
    made = method()
    assert made.teacher is not None
    target = made.teacher(dataset(20).batch(range(20)))["fc.input"]
    bits = hash_values(target, made.hash_weight, made.hash_bias) > 1e-7
    assert (bits.sum(0) <= 10).all()
    assert bits.float().mean() > 0.4


def nearness(variant: str) -> tuple[float, float]:
    """Equal bits and cosine after a short training without labels."""
    teacher = cnn(6, 8, seed=2)
    fit(Plain(teacher, task=TASK), dataset(64), settings=Training(epochs=6, batch_size=16))
    torch.manual_seed(5)
    made = LSHFM(cnn(3, 4, seed=1), teacher, task=TASK, example=images(8), variant=variant, hard_weight=0.0)
    fit(made, dataset(64), settings=Training(epochs=10, batch_size=16))
    made.eval()
    assert made.teacher is not None
    batch = TASK.batch(dataset(64).batch(range(64)))
    features = made._features(made.student_taps(batch), made.teacher(batch))
    weight = torch.randn(512, 8, generator=torch.Generator().manual_seed(9))
    bias = hash_bias(features.target, weight, "median")
    same = [hash_values(each, weight, bias) > 0 for each in features[:2]]
    return float((same[0] == same[1]).float().mean()), float(made(batch).notes["cosine"])


def test_directions_are_nearer_with_hashing_than_with_squares_alone() -> None:
    bits, cosine = nearness("lshl2")
    bits_of_squares, cosine_of_squares = nearness("l2")
    assert bits > bits_of_squares
    assert cosine > cosine_of_squares - 1e-3
    assert bits > 0.8
