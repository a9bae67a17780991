from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Teacher
from limbeck.losses import bernoulli_divergence, softened_divergence, squared_error, top_k
from limbeck.methods import UHKD
from limbeck.record import Losses, Record
from limbeck.task import MultiLabel, Regression
from tests.methods import slow_uhkd
from tests.methods.tapped import changed, cnn, encoder, images, state, texts

READINGS: list[dict[str, object]] = [
    {},
    {"representation": "log_magnitude"},
    {"representation": "complex"},
    {"filter": "none"},
    {"downsample": "pool"},
    {"filter_student": False},
    {"student_path": "direct"},
    {"student_path": "direct", "representation": "complex"},
    {"normalise": "rms"},
    {"normalise": "rms", "student_path": "direct", "downsample": "pool"},
    {"representation": "complex", "downsample": "pool", "filter_student": False},
    {"sigma": 1.5, "epsilon": 1e-3, "block": 2},
]


def method(dtype: torch.dtype = torch.float64, samples: int = 4, **settings: object) -> UHKD:
    """Three levels of two small networks; the teacher is wider."""
    networks = cnn(3, 4, 4, seed=1).to(dtype), cnn(2, 3, 5, seed=2).to(dtype)
    torch.manual_seed(3)
    return UHKD(*networks, example=images(samples, dtype=dtype), **settings).to(dtype)


def levels(losses: Losses) -> list[Tensor]:
    return [term for name, term in losses.terms.items() if name.startswith("freq")]


def values(made: UHKD, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The maps of each level, student and teacher."""
    with torch.no_grad():
        student, teacher = made.student_taps(batch), made.teacher(batch)
    return [(student[level.student.layer], teacher[level.teacher.layer]) for level in made.levels]


def same(reading: dict[str, object] | None = None) -> tuple[UHKD, Record]:
    """A method whose projections change nothing, and what its teacher says of a batch."""
    student, teacher = cnn(3, 4, seed=1).double(), cnn(3, 4, seed=1).double()
    made = UHKD(student, teacher, example=images(4, dtype=torch.float64), **(reading or {})).double()
    for projector in made.projectors:
        nn.init.dirac_(projector.layers[0].weight)
        nn.init.zeros_(projector.layers[0].bias)
    return made, made.teacher(images(4, dtype=torch.float64))


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_every_reading_equals_plain_loops(reading: dict[str, object]) -> None:
    made, batch = method(**reading), images(2, dtype=torch.float64)
    settings = {name: value for name, value in reading.items() if name != "block"}
    found = levels(made(batch))
    assert len(found) == 3
    for level, projector, (own, other), term in zip(
        made.levels, made.projectors, values(made, batch), found, strict=True
    ):
        convolution = projector.layers[0]
        weight = convolution.weight[:, :, 0, 0].tolist(), convolution.bias.tolist()
        slow = slow_uhkd.error(own.tolist(), other.tolist(), level.size, *weight, **settings)
        assert term.item() == pytest.approx(slow, rel=1e-9)


def test_the_total_is_the_weighted_sum_with_its_defaults() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    found = made(batch)
    logits, target = made.student(batch["inputs"]), made.teacher(batch).output
    hard, soft = F.cross_entropy(logits, batch["targets"]), softened_divergence(logits, target, 1.0)
    torch.testing.assert_close(found.terms["hard"], hard)
    torch.testing.assert_close(found.terms["soft"], soft)
    torch.testing.assert_close(found.total, hard + soft + sum(levels(found)))
    assert found.weights == {"hard": 1.0, "soft": 1.0, "freq1": 1.0, "freq2": 1.0, "freq3": 1.0}
    assert [level.size for level in made.levels] == [(8, 8), (4, 4), (2, 2)]
    weighted = method(beta=2.0, level_weights=[1.0, 0.0, 0.5], soft_weight=0.5)(batch)
    assert weighted.weights == {"hard": 1.0, "soft": 0.5, "freq1": 2.0, "freq2": 0.0, "freq3": 1.0}
    expected = hard + soft / 2 + 2 * found.terms["freq1"] + found.terms["freq3"]
    torch.testing.assert_close(weighted.total, expected)


def test_every_level_has_a_convolution_with_bias_also_where_channels_agree() -> None:
    made = method()
    shapes = [tuple(projector.layers[0].weight.shape) for projector in made.projectors]
    assert shapes == [(2, 3, 1, 1), (3, 4, 1, 1), (5, 4, 1, 1)]
    assert all(len(projector.layers) == 1 for projector in made.projectors)
    equal, _ = same()
    assert all(projector.layers[0].bias is not None for projector in equal.projectors)


@pytest.mark.parametrize("reading", [each for each in READINGS if "student_path" not in each], ids=str)
def test_equal_features_give_zero_unless_only_the_teacher_is_filtered(reading: dict[str, object]) -> None:
    made, said = same(reading)
    found = made.losses(said, said, images(4, dtype=torch.float64))
    one_sided = reading.get("filter_student") is False
    assert all((term.item() > 1e-6) == one_sided for term in levels(found))


def test_where_things_are_on_the_teacher_map_does_not_matter_but_for_complex() -> None:
    batch = images(4, dtype=torch.float64)
    for representation in ("magnitude", "log_magnitude", "complex"):
        made, said = same({"representation": representation})
        moved = Record(said.output, {name: value.roll((1, 2), (2, 3)) for name, value in said.layers.items()})
        found = made.losses(said, moved, batch)
        assert all((term.item() > 1e-6) == (representation == "complex") for term in levels(found))


def test_whole_complex_spectra_are_half_the_error_of_the_maps() -> None:
    batch = images(4, dtype=torch.float64)
    made = method(representation="complex", filter="none")
    for projector, (own, other), term in zip(
        made.projectors, values(made, batch), levels(made(batch)), strict=True
    ):
        torch.testing.assert_close(term, F.mse_loss(projector(own), other) / 2)


def test_the_notes_say_what_the_levels_hold() -> None:
    made, batch = method(level_weights=[1.0, 2.0, 0.0], beta=3.0), images(4, dtype=torch.float64)
    found = made(batch)
    for number, (level, (_, other)) in enumerate(zip(made.levels, values(made, batch), strict=True)):
        target = made.transform.of_teacher(other, level.size)
        torch.testing.assert_close(found.notes["mean_target"][number], target.mean())
        middle = target[:, :, level.size[0] // 2, level.size[1] // 2]
        share = middle.square().sum() / target.square().sum()
        torch.testing.assert_close(found.notes["zero_share"][number], share)
    one, two, _ = levels(found)
    torch.testing.assert_close(
        found.notes["freq_to_hard"], ((3 * one + 6 * two) / found.terms["hard"]).detach()
    )
    unlabelled = made({**batch, "targets": torch.full((4,), -1)})
    assert float(unlabelled.notes["freq_to_hard"]) == 0
    assert "freq_to_hard" not in method(hard_weight=0.0)(batch).notes


def test_student_and_projections_train_and_only_the_student_is_deployed() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    (stage,) = made.stages()
    (update,) = stage.updates
    assert {id(p) for p in update.parameters()} == {id(p) for p in made.parameters()}
    made.enter(stage)
    before, teacher = state(made), state(made.teacher.model)
    made(batch).total.backward()
    torch.optim.SGD(update.parameters(), lr=0.1).step()
    assert changed(before, made) == set(before)
    assert changed(teacher, made.teacher.model) == set()
    assert {name.split(".")[0] for name in made.state_dict()} == {"student", "projectors"}
    assert set(made.deployable().state_dict()) == set(made.student.state_dict())


def test_the_target_has_no_gradient() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    for name, value in teacher.layers.items():
        teacher.layers[name] = value.requires_grad_()
    made.losses(student, teacher, batch).total.backward()
    assert all(value.grad is None for value in teacher.layers.values())


def test_constant_maps_and_dead_channels_have_finite_gradients() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    with torch.no_grad():
        for network in (made.student.layer1, made.student.layer2, made.teacher.model.layer3):
            for parameter in network.parameters():
                parameter.zero_()
    found = made(batch)
    found.total.backward()
    assert found.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_levels_are_computed_in_single_precision_under_autocast_and_of_half_teachers() -> None:
    made, batch = method(torch.float32), images(4)
    exact = made(batch)
    made.teacher = Teacher(copy.deepcopy(made.teacher.model).half(), paths=made.tapped["teacher"])
    half = made(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(batch)
    for found in (half, mixed):
        assert all(term.dtype == torch.float32 for term in found.terms.values())
        torch.testing.assert_close(found.total, exact.total, rtol=0.1, atol=0.1)
        found.total.backward()
    seen: list[torch.dtype] = []
    made.projectors[0].layers.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made(batch)
    assert seen == [torch.float32]


def test_a_method_in_bfloat16_has_losses_in_single_precision() -> None:
    made = method(torch.float32).to(torch.bfloat16)
    made.teacher = Teacher(made.teacher.model.to(torch.bfloat16), paths=made.tapped["teacher"])
    batch = images(4)
    found = made({**batch, "inputs": batch["inputs"].bfloat16()})
    assert all(term.dtype == torch.float32 and term.isfinite() for term in found.terms.values())
    found.total.backward()


def test_a_batch_of_one_and_one_that_lacks_classes() -> None:
    made = method().eval()  # its own batch norms need more in training
    for batch in (images(1, dtype=torch.float64), images(4, dtype=torch.float64)):
        found = made({**batch, "targets": torch.zeros_like(batch["targets"])})
        found.total.backward()
        assert found.total.isfinite()


def test_sums_are_divided_by_the_count_of_the_loop() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    plain = made(batch)
    counted = made({**batch, "count": {"samples": 8.0, "targets": 8.0}})
    for name, term in plain.terms.items():
        torch.testing.assert_close(counted.terms[name], term / 2)


@pytest.mark.parametrize(
    ("projector", "kinds"),
    [("conv_bn", [nn.Conv2d, nn.BatchNorm2d]), ("mlp", [nn.Conv2d, nn.GELU, nn.Conv2d])],
)
def test_other_projections(projector: str, kinds: list[type[nn.Module]]) -> None:
    made, batch = method(projector=projector), images(4, dtype=torch.float64)
    assert [type(layer) for layer in made.projectors[2].layers] == kinds
    assert made.card.couples_batch == (projector == "conv_bn")
    assert not UHKD.card.couples_batch
    for (own, other), project, level, term in zip(
        values(made, batch), made.projectors, made.levels, levels(made(batch)), strict=True
    ):
        mine = made.transform.of_student(project.layers(own), level.size)
        torch.testing.assert_close(term, F.mse_loss(mine, made.transform.of_teacher(other, level.size)))
    wide = method(projector="mlp", student_path="direct", representation="complex")
    assert [layer.out_channels for layer in wide.projectors[2].layers if isinstance(layer, nn.Conv2d)] == [
        5,
        10,
    ]
    wide(batch).total.backward()


@pytest.mark.parametrize(
    ("task", "targets", "soft"),
    [
        (MultiLabel(4), torch.ones(4, 4), lambda own, other: bernoulli_divergence(own, other, 2.0)),
        (Regression(), torch.zeros(4, 4), squared_error),
    ],
)
def test_several_labels_and_values_have_their_own_soft_terms(task, targets, soft) -> None:
    batch = {**images(4), "targets": targets}
    made = UHKD(cnn(3, 4, seed=1), cnn(2, 3), task=task, example=batch, temperature=2.0)
    found, student = made(batch), made.student(batch["inputs"])
    torch.testing.assert_close(found.terms["hard"], task.loss(student, batch))
    torch.testing.assert_close(found.terms["soft"], soft(student, made.teacher(batch).output))
    assert made.top_k_temperatures() is None


def test_the_largest_outputs_of_a_teacher_are_enough() -> None:
    made, batch = method(temperature=2.0), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    whole = made.losses(student, teacher, batch)
    assert made.top_k_temperatures() == (2.0,)
    kept = Record(top_k(teacher.output, 4, temperatures=(2.0,)), teacher.layers)
    torch.testing.assert_close(made.losses(student, kept, batch).terms["soft"], whole.terms["soft"])


def test_the_teacher_stops_after_its_last_tap_where_its_output_is_not_read() -> None:
    ran: list[str] = []
    for soft_weight in (1.0, 0.0):
        made = method(soft_weight=soft_weight)
        made.teacher.model.fc.register_forward_pre_hook(lambda module, inputs: ran.append("fc"))
        assert made(images(4, dtype=torch.float64)).total.isfinite()
    assert ran == ["fc"]


def test_labels_are_not_needed_without_a_hard_weight() -> None:
    batch = images(4, dtype=torch.float64)
    del batch["targets"]
    assert set(method(hard_weight=0.0)(batch).terms) == {"soft", "freq1", "freq2", "freq3"}


def test_lines_of_tokens_have_frequencies_along_themselves_alone() -> None:
    batch = texts(4)
    batch["inputs"]["attention_mask"] = torch.ones_like(batch["inputs"]["attention_mask"])
    student, teacher = encoder(4, seed=1), encoder(6, seed=2)
    paths = ["blocks.0", "blocks.1"]
    layouts = {side: dict.fromkeys(paths, "line") for side in ("student", "teacher")}
    made = UHKD(
        student.double(),
        teacher.double(),
        taps={"student": paths, "teacher": paths},
        layouts=layouts,
        example=batch,
        block=[3, 5],
    ).double()
    assert [level.size for level in made.levels] == [(1, 3), (1, 5)]
    found = levels(made(batch))
    for level, projector, (own, other), term in zip(
        made.levels, made.projectors, values(made, batch), found, strict=True
    ):
        convolution = projector.layers[0]
        weight = convolution.weight[:, :, 0, 0].tolist(), convolution.bias.tolist()
        maps = [value.transpose(1, 2).unsqueeze(2).tolist() for value in (own, other)]
        assert term.item() == pytest.approx(slow_uhkd.error(*maps, level.size, *weight), rel=1e-9)


def test_mixed_samples_have_both_labels_in_the_hard_term_alone() -> None:
    made, batch = method(), images(4, dtype=torch.float64)
    share = torch.full((4,), 0.3, dtype=torch.float64)
    mixed = {**batch, "mixed": {"share": share, "targets": batch["targets"].flip(0)}}
    one, other = made(batch), made(mixed)
    partner = made({**batch, "targets": batch["targets"].flip(0)}).terms["hard"]
    torch.testing.assert_close(other.terms["hard"], 0.3 * one.terms["hard"] + 0.7 * partner)
    for name in ("soft", "freq1", "freq2", "freq3"):
        assert torch.equal(other.terms[name], one.terms[name])
