from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Teacher
from limbeck.losses import bernoulli_divergence, softened_divergence, squared_error
from limbeck.methods import SemCKD
from limbeck.methods._cross_layers import Map, Projection, match, similarity
from limbeck.task import MultiLabel, Regression
from tests.methods import slow_semckd
from tests.methods.tapped import changed, cnn, encoder, images, state, texts

STUDENT, TEACHER = ["layer1", "layer2"], ["layer1", "layer2", "layer3"]


def method(
    student: list[str] = STUDENT,
    teacher: list[str] = TEACHER,
    *,
    samples: int = 8,
    dtype: torch.dtype = torch.float64,
    **settings: object,
) -> SemCKD:
    networks = cnn(3, 4, seed=1).to(dtype), cnn(2, 3, 4, seed=2).to(dtype)
    taps = {"student": student, "teacher": teacher}
    torch.manual_seed(3)
    made = SemCKD(*networks, taps=taps, example=images(samples, dtype=dtype), **settings)
    return made.to(dtype)


def maps(made: SemCKD, batch: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The tapped values of both sides, without gradient."""
    with torch.no_grad():
        return [[*taps(batch).layers.values()] for taps in (made.student_taps, made.teacher.taps)]


def test_the_semantic_term_equals_plain_loops() -> None:
    made, batch = method(samples=4, factor=1, attention_temperature=0.5), images(4, dtype=torch.float64)
    found = made(batch)
    student, teacher = maps(made, batch)
    slow = slow_semckd.attention_weights(made, student, teacher), slow_semckd.errors(made, student, teacher)
    assert found.terms["semckd"].item() == pytest.approx(slow_semckd.semantic(*slow))
    weights, errors = (torch.tensor(values, dtype=torch.float64) for values in slow)
    torch.testing.assert_close(found.notes["attention"], weights.mean(0))
    torch.testing.assert_close(found.notes["pair_error"], errors.mean(0))
    entropy = -(weights * weights.log()).sum(2).mean()
    torch.testing.assert_close(found.notes["attention_entropy"], entropy)


def test_the_total_is_the_weighted_sum_with_the_weights_of_the_paper() -> None:
    made, batch = method(), images(dtype=torch.float64)
    found = made(batch)
    logits, target = made.student(batch["inputs"]), made.teacher(batch).output
    hard, soft = F.cross_entropy(logits, batch["targets"]), softened_divergence(logits, target, 4.0)
    torch.testing.assert_close(found.terms["hard"], hard)
    torch.testing.assert_close(found.terms["soft"], soft)
    torch.testing.assert_close(found.total, hard + soft + 400 * found.terms["semckd"])
    assert found.weights == {"hard": 1.0, "soft": 1.0, "semckd": 400.0}


def test_weights_sum_to_one_over_teacher_layers_and_stay_in_their_bounds() -> None:
    made, batch = method(factor=2), images(dtype=torch.float64)
    student, teacher = ([similarity(value) for value in side] for side in maps(made, batch))
    attention = made.association(student, teacher, 1.0).detach()
    assert attention.shape == (8, 2, 3)
    torch.testing.assert_close(attention.sum(2), torch.ones(8, 2, dtype=torch.float64))
    lowest = math.exp(-1) / (math.exp(-1) + 2 * math.e)
    assert lowest <= float(attention.min()) < float(attention.max()) <= math.exp(2) / (math.exp(2) + 2)
    assert float((attention[0] - attention[1]).abs().max()) > 1e-6  # every sample has its own


def test_one_teacher_layer_is_plain_projected_error_and_trains_no_attention() -> None:
    made, batch = method(teacher=["layer2"]), images(dtype=torch.float64)
    found = made(batch)
    assert torch.equal(found.notes["attention"], torch.ones(2, 1, dtype=torch.float64))
    assert float(found.notes["attention_entropy"]) == 0
    torch.testing.assert_close(found.terms["semckd"].detach(), found.notes["pair_error"].mean())
    found.total.backward()
    for parameter in made.association.parameters():
        assert float(parameter.grad.abs().max()) < 1e-14
    assert all(float(p.grad.abs().max()) > 0 for p in made.projections.parameters())


def test_permuting_teacher_layers_with_their_modules_permutes_the_attention() -> None:
    order = [2, 0, 1]
    one, batch = method(), images(dtype=torch.float64)
    other = method(teacher=[TEACHER[j] for j in order])
    other.association.queries.load_state_dict(one.association.queries.state_dict())
    for new, old in enumerate(order):
        other.association.keys[new].load_state_dict(one.association.keys[old].state_dict())
        for i in range(2):
            other.projections[i][new].load_state_dict(one.projections[i][old].state_dict())
    before, after = one(batch), other(batch)
    torch.testing.assert_close(after.terms["semckd"], before.terms["semckd"])
    torch.testing.assert_close(after.notes["attention"], before.notes["attention"][:, order])
    torch.testing.assert_close(after.notes["pair_error"], before.notes["pair_error"][:, order])


def test_a_constant_teacher_map_works() -> None:
    made, batch = method(), images(dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.teacher.model.layer3.parameters():
            parameter.zero_()
    found = made(batch)
    found.total.backward()
    assert found.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_an_embedding_of_zeros_is_finite() -> None:
    made, batch = method(), images(dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.association.parameters():
            parameter.zero_()
    found = made(batch)
    found.total.backward()
    torch.testing.assert_close(found.notes["attention"], torch.full((2, 3), 1 / 3, dtype=torch.float64))
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_gradient_reaches_the_student_through_the_attention_unless_detached() -> None:
    batch = images(dtype=torch.float64)

    def gradients(**settings: object) -> Tensor:
        made = method(**settings)
        with torch.no_grad():  # errors that do not depend on the student leave the attention alone
            for row in made.projections:
                for projection in row:
                    projection.layers[6].weight.zero_()
        made(batch).terms["semckd"].backward()
        return made.student.stem[0].weight.grad

    assert float(gradients().abs().max()) > 0
    assert float(gradients(attention="detached").abs().max()) == 0


def test_detached_still_trains_the_attention_networks_to_the_same_loss() -> None:
    batch = images(dtype=torch.float64)
    found = {name: method(attention=name) for name in ("learned", "detached")}
    losses = {name: made(batch).terms["semckd"] for name, made in found.items()}
    assert torch.equal(losses["learned"], losses["detached"])
    for name, loss in losses.items():
        loss.backward()
        assert all(p.grad.isfinite().all() for p in found[name].association.parameters())
    queries = [made.association.queries[0].hidden.weight.grad for made in found.values()]
    torch.testing.assert_close(*queries)


def test_equal_attention_is_the_mean_over_all_pairs() -> None:
    made, batch = method(attention="equal"), images(5, dtype=torch.float64)  # no rule on the batch size
    found = made(batch)
    assert made.association is None
    torch.testing.assert_close(found.terms["semckd"].detach(), found.notes["pair_error"].mean())
    assert float(found.notes["attention_entropy"]) == pytest.approx(math.log(3))


def test_fixed_attention_has_its_own_projections_alone() -> None:
    made = method(attention="fixed", pairs={"layer1": "layer3", "layer2": "layer2"})
    batch = images(5, dtype=torch.float64)
    found = made(batch)
    assert made.association is None
    assert [[tuple(p.layers[6].weight.shape[:2]) for p in row] for row in made.projections] == [
        [(4, 8)],
        [(3, 6)],
    ]
    student, teacher = maps(made, batch)
    own = F.adaptive_avg_pool2d(student[0], teacher[2].shape[2:])
    one = (made.projections[0][0](own) - teacher[2]).square().mean()
    two = (made.projections[1][0](student[1]) - teacher[1]).square().mean()
    torch.testing.assert_close(found.terms["semckd"], (one + two) / 2)
    assert found.notes["attention"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert found.notes["pair_error"].shape == (2, 1)


def test_the_larger_map_of_a_pair_is_averaged_to_the_smaller_height_and_width() -> None:
    class Wide(nn.Module):
        def __init__(self, height: int, width: int) -> None:
            super().__init__()
            self.map = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d((height, width)))
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.map(x).mean((2, 3)))

    batch = images(4)
    taps = {"student": ["map"], "teacher": ["map"]}
    made = SemCKD(Wide(5, 4), Wide(3, 7), taps=taps, example=batch)
    seen = []
    made.projections[0][0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    made(batch).total.backward()
    assert seen == [(4, 3, 3, 4)]


def test_the_smaller_batch_of_the_rule() -> None:
    batch = images(5, dtype=torch.float64)
    logits = method(incomplete="logits")(batch)
    assert set(logits.terms) == {"hard", "soft"}
    assert logits.notes == {}
    made = method(incomplete="pad")
    found = made(batch)
    student, teacher = ([similarity(value) for value in side] for side in maps(made, batch))
    # The same by hand: the first five columns of the weights see the five samples.
    short = copy.deepcopy(made.association)
    for network in (*short.queries, *short.keys):
        network.hidden.weight = nn.Parameter(network.hidden.weight[:, :5])
    short.batch = 5
    attention = short(student, teacher, 1.0)
    torch.testing.assert_close(found.notes["attention"], attention.mean(0))
    assert attention.shape == (5, 2, 3)
    student, teacher = maps(made, batch)
    errors = torch.tensor(slow_semckd.errors(made, student, teacher), dtype=torch.float64)
    torch.testing.assert_close(found.terms["semckd"], (attention * errors).sum() / (5 * 2))


@pytest.mark.parametrize("samples", [5, 8, 11])
def test_outside_training_batches_of_another_size_have_hard_and_soft_terms(samples: int) -> None:
    made = method().eval()
    found = made(images(samples, dtype=torch.float64))
    assert ("semckd" in found.terms) == (samples == 8)
    assert found.total.isfinite()


def test_sums_are_divided_by_the_count_of_the_loop() -> None:
    made, batch = method(), images(dtype=torch.float64)
    plain = made(batch)
    counted = made({**batch, "count": {"samples": 16.0, "targets": 16.0}})
    for name, term in plain.terms.items():
        torch.testing.assert_close(counted.terms[name], term / 2)


def test_all_parts_train_and_only_the_student_is_deployed() -> None:
    made, batch = method(), images(dtype=torch.float64)
    (stage,) = made.stages()
    (update,) = stage.updates
    assert {id(p) for p in update.parameters()} == {id(p) for p in made.parameters()}
    assert set(update.trains) == {"student", "attention", "projections"}
    assert stage.whole_batches
    assert not next(iter(method(incomplete="pad").stages())).whole_batches
    made.enter(stage)
    before, teacher = state(made), state(made.teacher.model)
    optimizer = torch.optim.SGD(update.parameters(), lr=0.01)
    made(batch).total.backward()
    optimizer.step()
    assert changed(before, made) == set(before)
    assert changed(teacher, made.teacher.model) == set()
    deployed = made.deployable()
    assert set(deployed.state_dict()) == set(made.student.state_dict())
    assert not any(module._forward_hooks for module in deployed.modules())


def test_the_checkpoint_holds_attention_and_projections_but_not_the_teacher() -> None:
    names = set(method().state_dict())
    parts = {name.split(".")[0] for name in names}
    assert parts == {"student", "association", "projections"}
    assert "projections.1.2.layers.0.weight" in names  # nested lists: (1, 11) and (11, 1) do not collide


def test_bfloat16_autocast_and_a_half_teacher_file() -> None:
    batch = images()
    made = method(dtype=torch.float32, beta=1.0)
    exact = made(batch)
    made.teacher = Teacher(copy.deepcopy(made.teacher.model).half(), paths=TEACHER)
    half = made(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(batch)
    for found in (half, mixed):
        assert all(term.dtype == torch.float32 for term in found.terms.values())
        torch.testing.assert_close(found.total, exact.total, rtol=0.1, atol=0.1)
        found.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_similarities_of_large_half_maps_do_not_overflow() -> None:
    value = torch.full((3, 400), 100.0, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity(value)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.full((3, 3), 4e6))


@pytest.mark.parametrize(
    ("task", "targets", "soft"),
    [
        (MultiLabel(4), torch.ones(8, 4), lambda own, other: bernoulli_divergence(own, other, 4.0)),
        (Regression(), torch.zeros(8, 4), squared_error),
    ],
)
def test_several_labels_and_values_have_their_own_soft_terms(task, targets, soft) -> None:
    batch = {**images(), "targets": targets}
    taps = {"student": STUDENT, "teacher": TEACHER}
    made = SemCKD(cnn(3, 4, seed=1), cnn(2, 3, 4), task=task, taps=taps, example=batch)
    found, student = made(batch), made.student(batch["inputs"])
    torch.testing.assert_close(found.terms["hard"], task.loss(student, batch))
    torch.testing.assert_close(found.terms["soft"], soft(student, made.teacher(batch).output))


def test_the_teacher_stops_after_its_last_tap_where_its_output_is_not_read() -> None:
    ran: list[str] = []
    for soft_weight in (1.0, 0.0):
        made = method(soft_weight=soft_weight)
        made.teacher.model.fc.register_forward_pre_hook(lambda module, inputs: ran.append("fc"))
        assert made(images(dtype=torch.float64)).total.isfinite()
    assert ran == ["fc"]


def test_labels_are_not_needed_without_a_hard_weight() -> None:
    batch = images(dtype=torch.float64)
    del batch["targets"]
    assert set(method(hard_weight=0.0)(batch).terms) == {"soft", "semckd"}


def sequence_method(batch: dict[str, object], **settings: object) -> SemCKD:
    student, teacher = encoder(4, seed=1), encoder(6, 3, seed=2)
    taps = {"student": ["blocks.0", "blocks.1"], "teacher": ["blocks.0", "blocks.2"]}
    torch.manual_seed(3)
    return SemCKD(student, teacher, taps=taps, example=batch, sequences=True, factor=2, **settings)


def test_padding_of_sequences_may_hold_anything() -> None:
    batch = texts()
    made = sequence_method(batch)
    one = made(batch)
    other = {**batch, "inputs": dict(batch["inputs"])}
    mask = batch["inputs"]["attention_mask"].bool()
    other["inputs"]["input_ids"] = batch["inputs"]["input_ids"].where(mask, 7)
    two = made(other)
    torch.testing.assert_close(one.terms["semckd"], two.terms["semckd"], rtol=0, atol=0)
    one.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.projections.parameters())


def test_padded_positions_do_not_count_in_the_error_of_sequences() -> None:
    batch = texts(4, 3)
    made = sequence_method(batch, attention="equal").eval()
    found = made(batch)
    student, teacher = maps(made, batch)
    mask = batch["inputs"]["attention_mask"]
    for i, own in enumerate(student):
        for j, other in enumerate(teacher):
            own = own * mask[:, :, None]
            projected = made.projections[i][j](own.transpose(1, 2)).transpose(1, 2).detach()
            each = [
                sum(float((projected[n, p] - other[n, p]).square().mean()) for p in range(int(mask[n].sum())))
                / int(mask[n].sum())
                for n in range(4)
            ]
            assert float(found.notes["pair_error"][i, j]) == pytest.approx(sum(each) / 4, rel=1e-5)


def test_sequences_are_averaged_over_valid_positions_alone() -> None:
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    value = torch.randn(2, 3, 5, dtype=torch.float64).masked_fill(~mask[:, None], 0)
    found = Map("layer", value, mask).pooled([3])
    for k, window in enumerate([range(2), range(1, 4), range(3, 5)]):  # 5 to 3, overlapping
        for n in range(2):
            valid = [p for p in window if mask[n, p]]
            expected = value[n][:, valid].mean(1) if valid else torch.zeros(3, dtype=torch.float64)
            torch.testing.assert_close(found.value[n, :, k], expected)
            assert bool(found.mask[n, k]) == bool(valid)


def test_sequences_of_unequal_length_meet_at_the_shorter_where_both_are_valid() -> None:
    torch.manual_seed(0)
    projection = Projection(3, 2, dimensions=1).double()
    own = Map("own", torch.randn(2, 3, 6, dtype=torch.float64), torch.ones(2, 6).bool())
    short = torch.tensor([[True] * 4, [True, True, True, False]])
    other = Map("other", torch.randn(2, 2, 4, dtype=torch.float64), short)
    projected, target, mask = match(projection, own, other)
    assert projected.shape == target.shape == (2, 2, 4)
    torch.testing.assert_close(projected, projection(F.adaptive_avg_pool1d(own.value, 4)))
    assert torch.equal(target, other.value)
    assert torch.equal(mask, short)
    longer = Map("own", torch.randn(2, 3, 3, dtype=torch.float64))
    projected, target, mask = match(projection, longer, Map("other", other.value))
    torch.testing.assert_close(target, F.adaptive_avg_pool1d(other.value, 3))
    assert projected.shape == (2, 2, 3)
    assert mask is None
