"""MHKD: values against plain loops, what each loss reaches, its stages, what stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from limbeck import fit
from limbeck.data.dataset import ArrayDataset
from limbeck.engine.settings import Training
from limbeck.methods import KD, MHKD, Plain
from limbeck.methods._branches import drawn
from limbeck.methods.combination import Combination
from limbeck.record import Record
from tests.methods import slow_mhkd
from tests.methods.tapped import changed, cnn, dataset, encoder, images, state, texts


def method(student: tuple[int, ...] = (3, 4), teacher: tuple[int, ...] = (4, 5), **settings: Any) -> MHKD:
    """Two small networks, narrow heads."""
    networks = cnn(*student, seed=1), cnn(*teacher, seed=2)
    torch.manual_seed(3)
    return MHKD(*networks, **{"example": images(4), "width": 3, **settings})


def entered(made: MHKD, number: int = 0) -> MHKD:
    made.enter(list(made.stages())[number])
    return made


def test_terms_and_total_equal_plain_loops() -> None:
    made = entered(method(num_linear=3, teacher_num_linear=1, teacher_width=2).double())
    made.teacher.model.double()
    batch = images(4, seed=5, dtype=torch.float64) | {"targets": torch.tensor([2, -1, 0, 3])}
    student, teacher = made.student_taps(batch), made.teacher(batch)
    sides = []
    for record, branches in ((student, made.branches), (teacher, made.teacher_branches)):
        layers = [head.layers for head in branches.each()]
        sides.append((record.output, list(record.layers.values()), layers))
    with torch.no_grad():
        wanted = slow_mhkd.terms(*sides, batch["targets"].tolist(), temperature=4.0)
    losses = made.losses(student, teacher, batch)
    found = {name: term.item() for name, term in losses.terms.items()}
    assert found == pytest.approx(wanted, rel=1e-10)
    letters = {"gamma": 0.1, "alpha": 0.9, "beta": 0.5, "kld": 0.9, "ce": 0.1}
    assert losses.total.item() == pytest.approx(slow_mhkd.total(wanted, letters), rel=1e-10)


def test_heads_have_the_form_of_the_code() -> None:
    made = method(num_linear=3, width=6, teacher_width=7, teacher_num_linear=1)
    kinds = [type(layer).__name__ for layer in made.branches.each()[1].layers]
    convolution = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [
        *convolution,
        *convolution,
        "AdaptiveAvgPool2d",
        "Flatten",
        *("Linear", "ReLU") * 2,
        "Linear",
    ]
    sizes = [tuple(p.shape) for p in made.branches.each()[1].layers.parameters() if p.ndim > 1]
    assert sizes == [(6, 4, 3, 3), (6, 6, 3, 3), (6, 6), (6, 6), (4, 6)]
    sizes = [tuple(p.shape) for p in made.teacher_branches.each()[0].layers.parameters() if p.ndim > 1]
    assert sizes == [(7, 4, 3, 3), (7, 7, 3, 3), (4, 7)]
    usual = MHKD(cnn(3, 512, seed=1), cnn(4, 5), example=images(4)).branches.each()[1]
    assert usual.layers[3].weight.numel() + usual.layers[3].bias.numel() == 590_080


def test_a_heads_loss_reaches_the_student_up_to_its_layer_and_its_own_head() -> None:
    made = entered(method())
    losses = made(images(4))
    (losses.terms["head1_soft"] + losses.terms["head1_hard"]).backward()
    reached = {name for name, value in made.named_parameters() if value.grad is not None and value.grad.any()}
    assert "student.stem.0.weight" in reached
    assert "branches.heads.0.layers.0.weight" in reached
    above = ("student.layer2", "student.fc", "branches.heads.1", "teacher_branches")
    assert not any(name.startswith(above) for name in reached)


@pytest.mark.parametrize("detached", [True, False])
def test_the_divergence_trains_teacher_heads_only_where_its_target_is_not_detached(detached: bool) -> None:
    made = entered(method(detach_target=detached))
    losses = made(images(4))
    losses.terms["head2_soft"].backward(retain_graph=True)
    grads = [value.grad for value in made.teacher_branches.heads[1].parameters()]
    assert all(grad is None for grad in grads) == detached
    other = entered(method())(images(4))
    assert losses.terms["head2_soft"].item() == pytest.approx(other.terms["head2_soft"].item(), rel=1e-5)
    losses.terms["teacher_head2_hard"].backward()
    assert all(value.grad is not None for value in made.teacher_branches.heads[1].parameters())


@pytest.mark.parametrize("teacher_heads", ["joint", "pretrained"])
def test_training_leaves_the_teacher_and_frozen_heads_bit_identical(teacher_heads: str) -> None:
    made = method(teacher_heads=teacher_heads)
    teacher = state(made.teacher.model)
    if teacher_heads == "pretrained":
        first = made.stages()[0]
        made.enter(first)
        optimizer = torch.optim.SGD(list(first.updates[0].parameters()), lr=0.1)
        made(images(4), update="teacher_heads").total.backward()
        optimizer.step()
    heads = state(made.teacher_branches)
    entered(made, -1)
    update = made.stages()[-1].updates[0]
    frozen = teacher_heads == "pretrained"
    assert made.teacher_branches.training != frozen
    optimizer = torch.optim.SGD(list(update.parameters()), lr=0.1, weight_decay=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        made(images(4)).total.backward()
        optimizer.step()
    assert not changed(teacher, made.teacher.model)
    moved = changed(heads, made.teacher_branches)
    assert (not moved) == frozen
    if not frozen:
        assert {"heads.0.layers.1.running_mean", "heads.0.layers.0.weight"} <= moved


def test_pretrained_has_a_stage_and_a_budget_of_its_own() -> None:
    data = dataset(16)
    made = method(teacher_heads="pretrained", head_epochs=3)
    first, second = made.stages()
    assert (first.name, first.epochs, first.data, first.scored) == ("heads", 3, "labelled", False)
    assert set(second.updates[0].trains) == {"student", "heads"}
    before = state(made.student)
    result = fit(made, data, data, settings=Training(epochs=5, batch_size=8))
    assert [entry["stage"] for entry in result.history] == [0, 0, 0, 1, 1]
    assert set(result.history[0]["terms"]) == {"teacher_head1_hard", "teacher_head2_hard"}
    assert bool(result.method.teacher_branches.trained)
    assert changed(before, result.method.student)


def test_shares_without_head_epochs_are_equal() -> None:
    made = method(teacher_heads="pretrained")
    result = fit(made, dataset(16), settings=Training(epochs=4, batch_size=8))
    assert [entry["stage"] for entry in result.history] == [0, 0, 1, 1]


def test_without_weight_pretrained_heads_leave_plain_distillation() -> None:
    made = method(beta=0.0, teacher_heads="pretrained", hard_weight=0.3, soft_weight=0.7, temperature=3.0)
    entered(made)(images(4), update="teacher_heads")
    entered(made, 1)
    student, teacher = made.student_taps(images(4)), made.teacher(images(4))
    plain = KD(made.student, made.teacher.model, hard_weight=0.3, soft_weight=0.7, temperature=3.0)
    assert torch.equal(
        made.losses(student, teacher, images(4)).total, plain.losses(student, teacher, images(4)).total
    )


def test_every_student_head_learns_from_the_output_of_the_teacher() -> None:
    made = entered(method(target="logits", taps={"student": ["layer1", "layer2"]}))
    assert made.teacher_branches is None
    assert made.tapped["teacher"] == []
    losses = made(images(4))
    assert not any(name.startswith("teacher") for name in {*losses.terms, *losses.notes})
    record = made.teacher(images(4))
    heads = made.branches(made.student_taps(images(4)).layers, images(4), look=True)
    for number, own in enumerate(heads, start=1):
        wanted = slow_mhkd.divergence(own.tolist(), record.output.tolist(), 4.0)
        assert losses.terms[f"head{number}_soft"].item() == pytest.approx(wanted, rel=1e-3)
    assert [stage.name for stage in made.stages()] == ["train"]
    assert method(target="logits").tapped["student"] == ["layer1", "layer2"]
    assert len(method(target="logits", teacher_heads="pretrained").stages()) == 1


def test_dropped_heads_have_no_weight_and_run_all_the_same() -> None:
    made = entered(method((3, 4, 4), (4, 5, 5), head_dropout=[0.0, 1.0, 1.0]))
    made.progress = 0.25
    before = state(made.branches)
    losses = made(images(4))
    assert [losses.weights[f"head{n}_soft"] for n in (1, 2, 3)] == [0.45, 0.0, 0.0]
    assert losses.weights["teacher_head3_hard"] == 1.0
    losses.total.backward()
    assert all(value.grad is None for value in made.branches.heads[2].parameters())
    assert "heads.2.layers.1.running_mean" in changed(before, made.branches)
    all_of_them = entered(method(head_dropout=1.0))
    all_of_them.progress = 0.25
    weights = all_of_them(images(4)).weights
    assert (weights["head1_soft"], weights["head2_soft"]) == (0.45, 0.0)


def test_draws_follow_from_the_seed_and_the_step_alone() -> None:
    draws = [drawn([0.5] * 4, 7, step / 1000) for step in range(1000)]
    assert draws == [drawn([0.5] * 4, 7, step / 1000) for step in range(1000)]
    assert draws != [drawn([0.5] * 4, 8, step / 1000) for step in range(1000)]
    shares = torch.tensor(draws, dtype=torch.float64).mean(0)
    assert torch.allclose(shares, torch.tensor([0.5 + 1 / 16, 0.5, 0.5, 0.5]).double(), atol=0.06)
    assert method(seed=5).dropout_seed.item() == 5


def test_heads_stop_after_an_epoch_and_do_not_move_any_more() -> None:
    made = method(stop_heads_after=1)
    seen: list[set[str]] = []
    stage = made.stages()[0]
    made.enter(stage)
    optimizer = torch.optim.SGD(list(stage.updates[0].parameters()), lr=0.1, momentum=0.9, weight_decay=0.1)
    for made.epoch in (1, 2, 3):
        before = {"own": state(made.branches), "teacher": state(made.teacher_branches)}
        optimizer.zero_grad()
        losses = made(images(4))
        losses.total.backward()
        optimizer.step()
        seen.append(set(losses.terms))
        moved = [*changed(before["own"], made.branches), *changed(before["teacher"], made.teacher_branches)]
        assert bool(moved) == (made.epoch == 1)
    assert len(seen[0]) == 8
    assert seen[1:] == [{"hard", "soft"}] * 2


def test_the_student_is_deployed_without_heads_and_the_state_holds_them() -> None:
    made = method()
    fit(made, dataset(16), settings=Training(epochs=1, batch_size=8))
    made.eval()
    inputs = images(4)["inputs"]
    deployed = made.deployable().eval()
    assert torch.equal(deployed(inputs), made.student(inputs))
    assert set(deployed.state_dict()) == set(cnn(3, 4).state_dict())
    stored = copy.deepcopy(made.state_dict())
    assert any(name.startswith("branches.") for name in stored)
    assert any(name.startswith("teacher_branches.") for name in stored)
    other = method()
    other.load_state_dict(stored)
    assert torch.equal(other.eval()(images(4)).total, made(images(4)).total)


def coloured(samples: int) -> ArrayDataset:
    """Pictures whose class is in the brightness of both channels, wherever one looks."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.arange(samples) % 4
    pixels = torch.rand(samples, 2, 8, 8, generator=generator) * 0.3
    pixels += torch.stack((targets % 2, targets // 2), 1)[:, :, None, None]
    return ArrayDataset(pixels, targets)


def heads_alone(teacher_heads: str, epochs: int, learning_rate: float) -> tuple[MHKD, list[dict[str, float]]]:
    """A training by heads alone, and the terms of each epoch of its last stage."""
    data = coloured(64)
    made = MHKD(
        cnn(4, 4, 4, seed=1),
        cnn(8, 8, 8, seed=2),
        example=data.batch(torch.arange(4)),
        width=8,
        teacher_heads=teacher_heads,
        hard_weight=0.0,
        soft_weight=0.0,
    )
    settings = Training(epochs=epochs, batch_size=8, learning_rate=learning_rate, optimizer="Adam")
    done = fit(made, data, settings=settings)
    return made.eval(), [entry["terms"] for entry in done.history if "head1_hard" in entry["terms"]]


def test_an_early_layer_of_the_student_learns_by_its_own_head() -> None:
    """The promise of the method, at a layer that plain distillation reaches from above alone."""
    made, terms = heads_alone("joint", 24, 0.01)
    for name in ("head1_hard", "teacher_head1_hard", "teacher_head3_hard"):
        assert terms[-1][name] < terms[0][name] / 2
    notes = made(coloured(64).batch(torch.arange(64))).notes
    assert notes["teacher_head_accuracy"].shape == notes["head_accuracy"].shape == (3,)
    assert notes["head_accuracy"][0] > 0.9
    assert notes["teacher_head_accuracy"].min() > 0.9


def test_student_heads_come_close_to_frozen_ones() -> None:
    _, terms = heads_alone("pretrained", 16, 0.02)
    for name in ("head1_soft", "head2_soft", "head3_soft"):
        assert terms[-1][name] < terms[0][name] / 4


def corners() -> ArrayDataset:
    """Pictures whose class is which of two opposite corners differ: no sum over places tells it."""
    bits = torch.cartesian_prod(*[torch.arange(2)] * 4).repeat(4, 1)
    targets = (bits[:, 0] ^ bits[:, 3]) + 2 * (bits[:, 1] ^ bits[:, 2])
    pixels = torch.zeros(64, 2, 8, 8)
    for number, (row, column) in enumerate(((0, 0), (0, 6), (6, 0), (6, 6))):
        pixels[:, :, row : row + 2, column : column + 2] = bits[:, number, None, None, None].float()
    return ArrayDataset(pixels, targets)


def test_the_accuracy_of_teacher_heads_rises_with_depth() -> None:
    """A value of the first layer sees one corner, of the last all; a linear head adds what it finds there."""
    data = corners()
    settings = Training(epochs=40, batch_size=16, learning_rate=0.02, optimizer="Adam")
    teacher = fit(Plain(cnn(8, 8, 16, seed=5)), data, settings=settings).method.student
    batch = data.batch(torch.arange(64))
    given = {"head": "linear", "num_linear": 1, "teacher_heads": "pretrained", "head_epochs": 20}
    made = MHKD(cnn(3, 3, 3, seed=1), teacher, example=batch, **given)
    made = fit(made, data, settings=settings.model_copy(update={"epochs": 21})).method.eval()
    rising = made(batch).notes["teacher_head_accuracy"]
    assert torch.equal(rising, rising.sort().values)
    assert rising[0] < 0.6
    assert rising[-1] > 0.9


def test_one_pair_of_maps_of_unlike_channels_and_sizes() -> None:
    taps = {"student": ["layer1"], "teacher": ["layer2"]}
    made = entered(method(taps=taps))
    assert [tuple(made.shapes[side][path[0]])[1:] for side, path in taps.items()] == [(3, 8, 8), (5, 4, 4)]
    losses = made(images(4))
    losses.total.backward()
    assert set(losses.terms) == {"hard", "soft", "head1_soft", "head1_hard", "teacher_head1_hard"}
    assert losses.total.isfinite()


def test_accuracies_are_those_of_labelled_samples() -> None:
    made = entered(method())
    batch = images(6) | {"targets": torch.tensor([0, -1, 2, 3, -1, 1])}
    before = copy.deepcopy(made)
    notes = made(batch).notes
    own = before.branches(before.student_taps(batch).layers, batch, look=True)
    labelled = batch["targets"] >= 0
    wanted = [(each.argmax(1) == batch["targets"])[labelled].float().mean() for each in own]
    assert torch.allclose(notes["head_accuracy"], torch.stack(wanted))


def test_linear_heads_take_vectors_maps_and_the_mean_of_valid_tokens() -> None:
    taps = {"student": ["layer1", "fc.input"], "teacher": ["layer2", "fc.input"]}
    made = entered(method(head="linear", taps=taps, num_linear=1, head_init="orthogonal"))
    assert [head.layers[0].in_features for head in made.branches.each()] == [3 * 8 * 8, 4]
    weight = made.teacher_branches.each()[1].layers[0].weight.double()
    assert torch.allclose(weight @ weight.T, torch.eye(4).double(), atol=1e-5)
    assert made(images(4)).total.isfinite()
    batch = texts()
    of_text = entered(
        MHKD(encoder(6, seed=1), encoder(8, seed=2), example=batch, head="linear", num_linear=1)
    )
    record = of_text.student_taps(batch)
    path = of_text.tapped["student"][0]
    rows = slow_mhkd.mean_of_valid(record[path], batch["inputs"]["attention_mask"])
    wanted = [slow_mhkd.through(row, of_text.branches.each()[0].layers[0], relu=False) for row in rows]
    outputs = of_text.branches(record.layers, batch, look=True)
    assert torch.allclose(outputs[0], torch.tensor(wanted), atol=1e-5)
    of_text(batch).total.backward()


def test_beside_other_methods_its_terms_stay_apart() -> None:
    student, teacher = cnn(3, 4, seed=1), cnn(4, 5, seed=2)
    heads = MHKD(student, teacher, example=images(4), width=3, hard_weight=0.0, soft_weight=0.0)
    both = Combination([KD(student, teacher), heads])
    losses = both(images(4))
    assert {"kd.hard", "kd.soft", "mhkd.head1_soft", "mhkd.teacher_head2_hard"} <= set(losses.terms)
    losses.total.backward()
    assert all(value.grad is not None for value in heads.parameters())


def test_records_are_read_by_the_names_of_the_layers() -> None:
    made = entered(method())
    student, teacher = made.student_taps(images(4)), made.teacher(images(4))
    turned = Record(teacher.output, dict(reversed(teacher.layers.items())))
    one, two = (copy.deepcopy(made).losses(student, each, images(4)) for each in (teacher, turned))
    assert torch.equal(one.total, two.total)
