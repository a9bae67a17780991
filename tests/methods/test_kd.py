from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses import mix_logits, softened_divergence, standardize, top_k
from limbeck.methods import KD, Plain
from limbeck.record import Record
from limbeck.teacher import Teacher
from tests.losses import slow
from tests.losses.test_soft import gradient, logits
from tests.methods.stored import LABELS, kd, losses, network


def test_terms_are_unweighted_and_the_total_is_their_weighted_sum() -> None:
    student, teacher, targets = logits(6, 4), logits(6, 4, seed=1), LABELS.clamp(min=0)
    found = losses(kd(hard_weight=0.5, soft_weight=2.0, temperature=3.0), student, teacher, targets=targets)
    hard = (
        -sum(
            math.log(slow.softmax(row)[y]) for row, y in zip(student.tolist(), targets.tolist(), strict=True)
        )
        / 6
    )
    soft = slow.soft_loss(student.tolist(), teacher.tolist(), 3.0)
    assert float(found.terms["hard"]) == pytest.approx(hard)
    assert float(found.terms["soft"]) == pytest.approx(soft)
    assert float(found.total) == pytest.approx(0.5 * hard + 2.0 * soft)
    assert found.weights == {"hard": 0.5, "soft": 2.0}


def test_temperature_does_not_touch_the_hard_term() -> None:
    student, teacher, targets = logits(6, 4), logits(6, 4, seed=1), LABELS
    found = [losses(kd(temperature=t), student, teacher, targets=targets).terms["hard"] for t in (1.0, 9.0)]
    assert torch.equal(found[0], found[1])


def test_samples_without_a_label_have_the_soft_term_alone() -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    found = losses(kd(temperature=3.0), student, teacher, targets=LABELS)
    labelled = LABELS >= 0
    torch.testing.assert_close(found.terms["hard"], F.cross_entropy(student[labelled], LABELS[labelled]))
    torch.testing.assert_close(found.terms["soft"], softened_divergence(student, teacher, 3.0))


def test_a_batch_without_any_label_has_no_hard_gradient() -> None:
    student, teacher = logits(6, 4).requires_grad_(), logits(6, 4, seed=1)
    found = losses(kd(), student, teacher, targets=torch.full((6,), -1))
    assert float(found.terms["hard"].detach()) == 0
    assert torch.equal(gradient(found.terms["hard"], student), torch.zeros_like(student))
    assert float(found.terms["soft"].detach()) > 0


def test_no_labels_are_needed_without_a_hard_weight() -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    found = losses(kd(alpha=1.0), student, teacher)
    assert set(found.terms) == {"soft"}
    with pytest.raises(RequestError, match=r"hard_weight 0.1 needs labels"):
        losses(kd(), student, teacher)
    with pytest.raises(RequestError, match=r"decoupled term needs labels"):
        losses(kd(variant="decoupled", hard_weight=0.0, soft_weight=1.0), student, teacher)


def test_equal_logits_are_the_minimum_of_the_card() -> None:
    student = logits(6, 4).requires_grad_()
    found = losses(kd(), student, student.detach().clone(), targets=LABELS)
    assert float(found.terms["soft"].detach()) == KD.card.minimum["soft"]
    assert float(gradient(found.terms["soft"], student).abs().max()) < 1e-15


@pytest.mark.parametrize("reduction", ["batchmean", "sum", "mean"])
def test_reductions(reduction: str) -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    found = losses(kd(reduction=reduction), student, teacher, targets=LABELS)
    torch.testing.assert_close(found.terms["soft"], softened_divergence(student, teacher, 4.0, reduction))


def test_decoupled_terms_equal_loops_over_the_labelled_samples() -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    method = kd(variant="decoupled", temperature=2.0, target_weight=0.5, non_target_weight=3.0, warmup=0)
    found = losses(method, student, teacher, targets=LABELS)
    parts = [
        slow.decoupled(student[i].tolist(), teacher[i].tolist(), y, 2.0)
        for i, y in enumerate(LABELS.tolist())
        if y >= 0
    ]
    assert float(found.terms["target"]) == pytest.approx(sum(part[0] for part in parts) / 4)
    assert float(found.terms["non_target"]) == pytest.approx(sum(part[1] for part in parts) / 4)
    assert found.weights == {"hard": 1.0, "target": 0.5, "non_target": 3.0}


def test_the_ramp_counts_epochs_from_one_and_leaves_the_hard_term_alone() -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    method = kd(variant="decoupled", warmup=20)
    with pytest.raises(RequestError, match=r"method.epoch = epoch"):
        losses(method, student, teacher, targets=LABELS)
    for epoch, factor in ((1, 0.05), (5, 0.25), (20, 1.0), (30, 1.0)):
        method.epoch = epoch
        weights = losses(method, student, teacher, targets=LABELS).weights
        assert weights == pytest.approx({"hard": 1.0, "target": factor, "non_target": 8 * factor})


def test_standardised_soft_term_and_raw_hard_term() -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    found = losses(kd(standardize=True), student, teacher, targets=LABELS)
    rows = [[slow.standardized(row) for row in each.tolist()] for each in (student, teacher)]
    assert float(found.terms["soft"]) == pytest.approx(slow.soft_loss(*rows, 2.0))
    torch.testing.assert_close(
        found.terms["hard"], losses(kd(), student, teacher, targets=LABELS).terms["hard"]
    )
    moved = losses(kd(standardize=True), 3 * student + 1, 0.2 * teacher - 5, targets=LABELS)
    torch.testing.assert_close(moved.terms["soft"], found.terms["soft"], rtol=1e-6, atol=0)
    other = losses(kd(standardize=True, population=True), student, teacher, targets=LABELS)
    rows = [[slow.standardized(row, population=True) for row in each.tolist()] for each in (student, teacher)]
    assert float(other.terms["soft"]) == pytest.approx(slow.soft_loss(*rows, 2.0))


@pytest.mark.parametrize("mixing", ["arithmetic", "geometric"])
@pytest.mark.parametrize("settings", [{}, {"standardize": True}, {"variant": "decoupled", "warmup": 0}])
def test_several_teachers_are_mixed_before_the_loss(mixing: str, settings: dict[str, object]) -> None:
    student, outputs = logits(6, 4), [logits(6, 4, seed=1), logits(6, 4, seed=2)]
    weights = [0.3, 0.7]
    method = KD(
        nn.Identity(),
        teachers=[nn.Identity(), nn.Identity()],
        mixing=mixing,
        teacher_weights=weights,
        **settings,
    )
    found = losses(method, student, outputs, targets=LABELS)
    if method.standardize:
        student, outputs = standardize(student), [standardize(each) for each in outputs]
    mixed = mix_logits(outputs, method.temperature, mixing, weights)
    plain = dict(settings) | {"standardize": False, "temperature": method.temperature}
    expected = losses(kd(**plain), student, mixed, targets=LABELS)
    for name in set(found.terms) - {"hard"}:
        torch.testing.assert_close(found.terms[name], expected.terms[name])


def test_a_teacher_twice_is_that_teacher() -> None:
    teacher, batch = network(1), (torch.randn(6, 5), LABELS)
    one = KD(network(0), teacher)(batch)
    for mixing in ("arithmetic", "geometric"):
        two = KD(network(0), teachers=[teacher, Teacher(teacher)], mixing=mixing)(batch)
        torch.testing.assert_close(two.total, one.total)


def test_teachers_are_in_neither_parameters_nor_state() -> None:
    method = KD(network(0), teachers=[network(1), network(2)])
    assert {id(p) for p in method.parameters()} == {id(p) for p in method.student.parameters()}
    assert all(name.startswith("student.") for name in method.state_dict())
    before = [copy.deepcopy(teacher.model.state_dict()) for teacher in method.teachers]
    method.train()
    method((torch.randn(6, 5), LABELS)).total.backward()
    for teacher, state in zip(method.teachers, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in teacher.model.state_dict().items())
        assert all(parameter.grad is None for parameter in teacher.model.parameters())
        assert not teacher.model.training


def test_a_teachers_answer_has_no_graph_even_where_the_inputs_have_one() -> None:
    inputs = torch.randn(6, 5, requires_grad=True)
    method = KD(network(0), network(1))
    assert not method.teacher({"inputs": inputs}).output.requires_grad
    assert method.student(inputs).requires_grad


@pytest.mark.parametrize(
    "settings", [{}, {"standardize": True}, {"variant": "decoupled", "warmup": 0}, {"rest": "uniform"}]
)
def test_a_teacher_with_all_its_classes_kept_equals_a_live_one(settings: dict[str, object]) -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    method = kd(**settings)
    kept = top_k(teacher, 4, [method.temperature], standardized=True)
    found = losses(method, student, kept, targets=LABELS)
    expected = losses(method, student, teacher, targets=LABELS)
    for name in expected.terms:
        torch.testing.assert_close(found.terms[name], expected.terms[name])


def test_decoupled_with_kept_classes_skips_samples_without_label() -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    kept = top_k(teacher, 2, [4.0], keep=LABELS.clamp(min=0))
    found = losses(kd(variant="decoupled", warmup=0), student, kept, targets=LABELS)
    labelled = LABELS >= 0
    expected = losses(
        kd(variant="decoupled", warmup=0), student[labelled], kept.select(labelled), targets=LABELS[labelled]
    )
    for name in expected.terms:
        torch.testing.assert_close(found.terms[name], expected.terms[name])


def test_kept_classes_at_another_temperature() -> None:
    student, kept = logits(6, 4), top_k(logits(6, 4, seed=1), 2, [1.0])
    with pytest.raises(RequestError, match="temperature 4 was not stored"):
        losses(kd(), student, kept, targets=LABELS)
    assert torch.isfinite(losses(kd(extrapolate=True), student, kept, targets=LABELS).total)
    labelled = top_k(logits(6, 4, seed=1), 2, [1.0], keep=LABELS.clamp(min=0))
    for extrapolate in (False, True):
        method = kd(variant="decoupled", warmup=0, extrapolate=extrapolate)
        if extrapolate:
            assert torch.isfinite(losses(method, student, labelled, targets=LABELS).total)
        else:
            with pytest.raises(RequestError, match="temperature 4 was not stored"):
                losses(method, student, labelled, targets=LABELS)


@pytest.mark.parametrize(
    ("rest", "reference"),
    [("bucket", slow.bucket), ("uniform", slow.uniform), ("renormalize", slow.renormalized)],
)
def test_dropped_classes_are_treated_as_asked(rest: str, reference: Callable[..., float]) -> None:
    student, teacher = logits(6, 4), logits(6, 4, seed=1)
    found = losses(kd(rest=rest), student, top_k(teacher, 2, [4.0]), targets=LABELS)
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    assert float(found.terms["soft"]) == pytest.approx(sum(reference(z, v, 2, 4.0) for z, v in rows) / 6)


def test_stored_outputs_equal_live_ones() -> None:
    student, teacher, batch = network(0), network(1), {"inputs": torch.randn(6, 5), "targets": LABELS}
    method = KD(student, teacher)
    live = method(batch)
    stored = Record(teacher(batch["inputs"]).detach())
    student.load_state_dict(network(0).state_dict())
    cached = method.losses(method.student_taps(batch), stored, batch)
    assert torch.equal(cached.total, live.total)


def test_half_precision_networks_have_float32_losses() -> None:
    student, teacher = network(0), network(1).bfloat16()
    method = KD(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = method((torch.randn(6, 5), LABELS))
    assert all(term.dtype == torch.float32 for term in found.terms.values())
    found.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())


def test_a_loop_of_ones_own() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(32, 5), torch.randint(0, 4, (32,))
    method = KD(network(0), network(1), alpha=1.0)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.2)
    totals = []
    for _ in range(40):
        found = method((inputs, targets))
        found.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(float(found.total.detach()))
    assert totals[-1] < 0.5 * totals[0]


def _blobs(seed: int) -> tuple[Tensor, Tensor]:
    """400 samples of 4 overlapping classes in 12 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(4, 12) * 2.5
    targets = torch.arange(400) % 4
    return centres[targets] + torch.randn(400, 12, generator=generator), targets


def _accuracy(method: KD | Plain, inputs: Tensor, targets: Tensor) -> float:
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for _ in range(120):
        method((inputs, targets)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    unseen, labels = _blobs(99)
    with torch.no_grad():
        return float((method.student(unseen).argmax(1) == labels).float().mean())


def test_with_few_labels_soft_targets_on_all_samples_help() -> None:
    gains = []
    for seed in range(3):
        inputs, targets = _blobs(seed)
        teacher = nn.Linear(12, 4)
        teacher.weight.data, teacher.bias.data = 2.5 * torch.eye(4, 12), torch.zeros(4)
        few = torch.where(torch.arange(400) < 12, targets, -1)
        torch.manual_seed(seed)
        student = nn.Linear(12, 4)
        plain = _accuracy(Plain(copy.deepcopy(student)), inputs, few)
        gains.append(_accuracy(KD(student, teacher), inputs, few) - plain)
    assert min(gains) > 0.05


def test_a_class_left_out_of_the_transfer_set_is_known_after_its_bias_is_raised() -> None:
    inputs, targets = _blobs(0)
    teacher = nn.Linear(12, 4)
    teacher.weight.data, teacher.bias.data = 2.5 * torch.eye(4, 12), torch.zeros(4)
    seen = targets != 3
    torch.manual_seed(0)
    method = KD(nn.Linear(12, 4), teacher, alpha=1.0)
    _accuracy(method, inputs[seen], targets[seen])
    unseen, labels = _blobs(99)
    with torch.no_grad():
        outputs = method.student(unseen)
    outputs[:, 3] += 0.5
    assert float((outputs.argmax(1) == 3)[labels == 3].float().mean()) > 0.8
    assert float((outputs.argmax(1) == labels).float().mean()) > 0.8
