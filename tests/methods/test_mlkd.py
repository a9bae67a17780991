from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from limbeck import Teacher
from limbeck.data.views import Views, view_number
from limbeck.methods import MLKD
from limbeck.record import Losses, Record
from limbeck.task import Classification, MultiLabel, Regression
from tests.methods import slow_mlkd
from tests.methods.tapped import CLASSES, changed, cnn, dataset, state

KINDS = ("hard", "correlation", "categorical", "alignment")


def views(
    samples: int = 4, number: int = 4, *, dtype: torch.dtype = torch.float64, labelled: int | None = None
) -> dict[str, Tensor]:
    """Some samples in their quarter turns, as the loop's loader reads them."""
    data = dataset(max(samples, 8), labelled=labelled).augment(Views(0, ["rotate"]))
    places = torch.arange(number).repeat(samples)
    rows = torch.arange(samples).repeat_interleave(number)
    batch = data.batch(rows, view_number(torch.zeros_like(places), places))
    return {**batch, "inputs": batch["inputs"].to(dtype)}


def method(dtype: torch.dtype = torch.float64, **settings: object) -> MLKD:
    """Two small networks of unlike width."""
    networks = cnn(3, 6, seed=1).to(dtype), cnn(2, 5, seed=2).to(dtype)
    torch.manual_seed(3)
    return MLKD(*networks, example=views(2, dtype=dtype), **settings).to(dtype)


def records(made: MLKD, batch: dict[str, Tensor]) -> tuple[Record, Record]:
    return made.student_taps(batch), made.teacher(batch, output=False)


def values(made: MLKD, batch: dict[str, Tensor]) -> dict[str, list]:
    """Every term in plain loops, of what the networks say in train mode."""
    made = copy.deepcopy(made)
    student, teacher = records(made, batch)
    own, target = student[made.tapped["student"][0]], teacher[made.tapped["teacher"][0]]
    labels = batch["targets"].tolist()
    mapped = made.correlation(own).tolist()
    embedded = [e(v).tolist() for e, v in zip(made.embeddings, (own, target), strict=True)]
    return {
        "hard": slow_mlkd.hard(student.output.tolist(), labels, made.views),
        "alignment": slow_mlkd.alignment(made.alignment(own).tolist(), target.tolist()),
        "correlation": slow_mlkd.correlation(
            mapped, target.tolist(), made.views, made.correlation_temperature
        ),
        "categorical": slow_mlkd.categorical(*embedded, labels, made.contrast_temperature),
    }


@pytest.mark.parametrize("number", [2, 3, 4, 5])
@pytest.mark.parametrize("labelled", [None, 2, 0])
@pytest.mark.parametrize("settings", [{}, {"correlation_temperature": 2.0, "contrast_temperature": 0.3}])
def test_every_term_equals_plain_loops(
    number: int, labelled: int | None, settings: dict[str, object]
) -> None:
    made, batch = method(views=number, **settings), views(4, number, labelled=labelled)
    slow, found = values(made, batch), made(batch)
    assert list(found.terms) == list(KINDS)
    for name, term in found.terms.items():
        assert term.item() == pytest.approx(slow[name], rel=1e-9, abs=1e-12)


def test_the_total_is_the_weighted_sum_with_its_defaults() -> None:
    found = method()(views())
    assert found.weights == {"hard": 1.0, "correlation": 50.0, "categorical": 1.0, "alignment": 20.0}
    torch.testing.assert_close(found.total, sum(found.weights[n] * t for n, t in found.terms.items()))
    (stage,) = method().stages()
    assert (stage.views, stage.scored) == (4, True)
    own = method()
    assert [tuple(m.weight.shape) for m in own.alignment if isinstance(m, nn.Linear)] == [(80, 6), (5, 80)]
    assert [tuple(m.weight.shape) for m in own.correlation if isinstance(m, nn.Linear)] == [(6, 6), (6, 6)]
    assert [tuple(m.weight.shape) for m in own.embeddings] == [(128, 6), (128, 5)]


def test_a_term_without_weight_and_its_map_are_left_out() -> None:
    for name in ("correlation", "categorical", "alignment"):
        made = method(**{f"{name}_weight": 0.0})
        found = made(views())
        assert name not in found.terms
        held = {key.split(".")[0] for key in made.state_dict()}
        assert ("embeddings" if name == "categorical" else name) not in held


def test_only_upright_rows_are_classified() -> None:
    made, batch = method(), views()
    student, teacher = records(made, batch)
    logits = student.output.detach().requires_grad_()
    made.losses(Record(logits, student.layers), teacher, batch).total.backward()
    rows = logits.grad.abs().sum(1) > 0
    assert rows.tolist() == [True, False, False, False] * 4


def test_equal_similarities_and_directions_give_zero() -> None:
    batch = views()
    same = MLKD(cnn(3, 6, seed=1).double(), cnn(3, 6, seed=1).double(), example=batch).double()
    for module in (same.alignment, same.correlation):
        for number, layer in enumerate(module):
            module[number] = nn.Identity() if not isinstance(layer, nn.Linear) else layer
    eye = torch.eye(6, dtype=torch.float64)
    for layer in (same.correlation[0], same.correlation[3]):
        layer.weight.data.copy_(eye)
        layer.bias.data.zero_()
    same.alignment[0].weight.data.copy_(torch.cat([eye, torch.zeros(90, 6)]))
    same.alignment[3].weight.data.copy_(torch.cat([3 * eye, torch.zeros(6, 90)], 1))
    for layer in (same.alignment[0], same.alignment[3]):
        layer.bias.data.zero_()
    teacher = same.teacher(batch, output=False)
    said = Record(torch.zeros(16, CLASSES, dtype=torch.float64), teacher.layers)
    found = same.losses(said, teacher, batch)
    assert found.terms["correlation"].item() == pytest.approx(0, abs=1e-12)
    assert found.terms["alignment"].item() == pytest.approx(0, abs=1e-12)
    assert float(found.notes["cosine"]) == pytest.approx(1)
    assert float(found.notes["same_nearest"]) == 1


def test_all_but_the_deployed_student_is_dropped_and_the_teacher_stays() -> None:
    made, batch = method(), views()
    (stage,) = made.stages()
    made.enter(stage)
    before, teacher = state(made), state(made.teacher.model)
    made(batch).total.backward()
    torch.optim.SGD(stage.updates[0].parameters(), lr=0.1).step()
    assert changed(before, made) == set(before)
    assert changed(teacher, made.teacher.model) == set()
    assert {name.split(".")[0] for name in made.state_dict()} == {
        "student",
        "alignment",
        "correlation",
        "embeddings",
    }
    assert set(made.deployable().state_dict()) == set(made.student.state_dict())


def test_statistics_move_once_a_step_and_see_every_view() -> None:
    made, batch = method(), views()
    seen: list[Tensor] = []
    made.student.layer1[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    made(batch)
    assert [len(value) for value in seen] == [16]
    assert [int(m.num_batches_tracked) for m in made.modules() if isinstance(m, nn.BatchNorm1d)] == [1, 1]


def test_the_teacher_has_no_gradient_and_its_embedding_has() -> None:
    made, batch = method(), views()
    student, teacher = records(made, batch)
    path = made.tapped["teacher"][0]
    teacher.layers[path] = teacher[path].requires_grad_()
    found = made.losses(student, teacher, batch)
    found.terms["correlation"].backward(retain_graph=True)
    found.terms["alignment"].backward(retain_graph=True)
    assert teacher[path].grad is None
    found.terms["categorical"].backward()
    assert all(p.grad is not None for p in made.embeddings.parameters())


def test_a_single_sample_has_no_correlation() -> None:
    found = method()(views(1))
    assert found.terms["correlation"].item() == 0
    assert found.terms["categorical"].item() > 0
    alone = method(hard_weight=0.0, alignment_weight=0.0)
    with pytest.warns(UserWarning, match="the correlation of a single sample is 0"):
        assert alone(views(1)).total.item() == 0


def test_rows_of_zeros_and_constant_features_have_finite_losses_and_gradients() -> None:
    made, batch = method(), views()
    student, teacher = records(made, batch)
    own, other = made.tapped["student"][0], made.tapped["teacher"][0]
    for fill in (0.0, 3.0):
        value = torch.full_like(student[own], fill).requires_grad_()
        target = torch.full_like(teacher[other], fill)
        target[0] = 0
        said = Record(student.output.detach(), {own: value})
        found = made.losses(said, Record(None, {other: target}), batch)
        found.total.backward()
        assert found.total.isfinite()
        assert value.grad.isfinite().all()
        assert value.grad.abs().max() < 1e6


def test_samples_of_absent_classes_and_without_labels_change_nothing_else() -> None:
    made = method(views=4)
    batch = views(4)
    batch["targets"] = torch.full_like(batch["targets"], 2)
    found = made(batch)
    assert found.total.isfinite()
    batch["targets"] = torch.full_like(batch["targets"], -1)
    unknown = made(batch)
    assert unknown.terms["categorical"].item() == 0
    assert unknown.terms["hard"].item() == 0
    assert unknown.terms["alignment"].item() > 0
    unknown.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_losses_are_in_single_precision_under_autocast_and_of_half_teachers() -> None:
    made, batch = method(torch.float32), views(dtype=torch.float32)
    exact = made(batch)
    made.teacher = Teacher(copy.deepcopy(made.teacher.model).half(), paths=made.tapped["teacher"])
    half = made(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(batch)
    for found in (half, mixed, method(torch.float32).to(torch.bfloat16)(batch)):
        assert all(term.dtype == torch.float32 for term in found.terms.values())
        torch.testing.assert_close(found.total, exact.total, rtol=0.1, atol=0.5)
        found.total.backward()


def cut(losses: list[Losses]) -> dict[str, Tensor]:
    return {name: torch.stack([each.terms[name] for each in losses]).mean() for name in losses[0].terms}


def test_means_over_micro_batches_are_those_of_their_counts() -> None:
    made, batch = method(), views(4, labelled=3)
    made.eval()
    count = {"samples": 8.0, "targets": 6.0}
    parts = [
        {name: value[first : first + 8] for name, value in batch.items()} | {"count": count}
        for first in (0, 8)
    ]
    together = cut([made(part) for part in parts])
    whole = made(batch)
    for name in ("hard", "alignment"):
        torch.testing.assert_close(together[name], whole.terms[name])


def test_other_kinds_of_targets_have_their_own_loss_and_no_categorical_term() -> None:
    batch = views()
    for task, targets in (
        (MultiLabel(CLASSES), torch.eye(CLASSES)[batch["targets"]]),
        (Regression(), torch.eye(CLASSES)[batch["targets"]]),
    ):
        networks = cnn(3, 6, seed=1), cnn(2, 5, seed=2)
        made = MLKD(*networks, task=task, example=views(2, dtype=torch.float32))
        given = {**views(dtype=torch.float32), "targets": targets}
        found = made(given)
        assert set(found.terms) == {"hard", "correlation", "alignment"}
        output = made.student_taps(given).output
        torch.testing.assert_close(found.terms["hard"], task.loss(output[::4], {"targets": targets[::4]}))


def test_a_teacher_of_other_classes_teaches() -> None:
    teacher = cnn(2, 5, seed=2)
    teacher.fc = nn.Linear(5, 9)
    made = MLKD(cnn(3, 6), teacher, task=Classification(CLASSES), example=views(2, dtype=torch.float32))
    assert made(views(dtype=torch.float32)).total.isfinite()
