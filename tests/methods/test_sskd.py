from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Stage, Teacher
from limbeck.methods import SSKD
from tests.methods.tapped import changed, cnn, encoder, images, state, texts

TAPS = {side: ["layer1", "layer2", "layer3"] for side in ("student", "teacher")}


def method(*, dropout: float = 0.0, dtype: torch.dtype = torch.float64, **settings: object) -> SSKD:
    """Stages of 3, 4 and 5 channels that learn from 3, 6 and 7."""
    student, teacher = cnn(3, 4, 5, seed=1, dropout=dropout), cnn(3, 6, 7, seed=2)
    torch.manual_seed(3)
    example = images(dtype=dtype)
    made = SSKD(
        student.to(dtype), teacher.to(dtype), taps=settings.pop("taps", TAPS), example=example, **settings
    )
    return made.to(dtype)


def train(made: SSKD, stage: Stage, batch: dict[str, object], *, steps: int = 3) -> list[float]:
    """One phase as in a loop of one's own."""
    made.enter(stage)
    if stage.begin is not None:
        stage.begin(None)
    update = stage.updates[0]
    optimizer = torch.optim.SGD(update.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    seen = []
    for _ in range(steps):
        loss = made(batch, update=update.name).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


class Untouchable:
    """Labels that nobody may look at."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"labels were read ({name})")


def unlabelled(batch: dict[str, Tensor]) -> dict[str, object]:
    return {**batch, "targets": Untouchable()}


def test_backbone_phases_equal_the_pseudo_code_with_networks_cut_by_hand() -> None:
    made, batch = method(), images(dtype=torch.float64)
    student, teacher = copy.deepcopy(made.student), made.teacher.model
    adaptors = copy.deepcopy(made.adaptors)
    own = [nn.Sequential(student.stem, student.layer1), student.layer2, student.layer3]
    others = [nn.Sequential(teacher.stem, teacher.layer1), teacher.layer2, teacher.layer3]
    found = [train(made, stage, batch, steps=4) for stage in list(made.stages())[:3]]
    student.requires_grad_(False).eval()
    z, t = batch["inputs"], batch["inputs"]
    for stage, other, adaptor, losses in zip(own, others, adaptors, found, strict=True):
        stage.requires_grad_().train()
        optimizer = torch.optim.SGD(
            [*stage.parameters(), *adaptor.parameters()], lr=0.1, momentum=0.9, weight_decay=0.01
        )
        with torch.no_grad():
            t = other(t)
        expected = []
        for _ in range(4):
            loss = F.mse_loss(adaptor(stage(z)), t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
        assert losses == pytest.approx(expected, rel=1e-12)
        stage.requires_grad_(False).eval()
        z = stage(z)
    for name, value in student.state_dict().items():
        torch.testing.assert_close(made.student.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_each_phase_moves_its_own_stage_alone_bit_for_bit() -> None:
    made, batch = method(dropout=0.5), images(dtype=torch.float64)
    own = [("student.stem.", "student.layer1."), ("student.layer2.",), ("student.layer3.",), ("student.fc.",)]
    teacher = state(made.teacher.model)
    for number, stage in enumerate(made.stages()):
        before = state(made)
        losses = train(made, stage, batch if stage.name == "head" else unlabelled(batch))
        assert losses[-1] < losses[0]
        moved = changed(before, made)
        adaptor = f"adaptors.{number}."
        expected = {
            name
            for name in before
            if name.startswith((*own[number], adaptor)) and not (number == 0 and name.startswith(adaptor))
        }
        assert moved == expected
        assert changed(teacher, made.teacher.model) == set()


def test_frozen_stages_stay_in_eval_mode_and_later_ones_are_not_run() -> None:
    made, batch = method(dropout=0.5), images(dtype=torch.float64)
    ran: list[str] = []
    for name, module in made.student.named_modules():
        module.register_forward_pre_hook(lambda module, inputs, name=name: ran.append(name))
    for number, stage in enumerate(made.stages()):
        made.enter(stage)
        made.train()
        training = {name for name, module in made.student.named_modules() if module.training}
        names = ["layer1", "layer2", "layer3", "fc"]
        assert names[number] in training
        assert not {name for name in names if name != names[number]} & training
        assert "dropout" not in training  # shared by stages, so active in none of them alone
        ran.clear()
        made(batch, update=stage.updates[0].name)
        assert not any(name in ran for name in names[number + 1 :])


def test_the_teacher_stops_after_the_layer_that_is_read_and_rests_in_the_head_phase() -> None:
    made, batch = method(), images(dtype=torch.float64)
    ran: list[str] = []
    for name, module in made.teacher.model.named_children():
        module.register_forward_pre_hook(lambda module, inputs, name=name: ran.append(name))
    expected = [["stem", "layer1"], ["stem", "layer1", "layer2"], ["stem", "layer1", "layer2", "layer3"], []]
    for stage, names in zip(made.stages(), expected, strict=True):
        made.enter(stage)
        ran.clear()
        made(batch, update=stage.updates[0].name)
        assert [name for name in ran if name != "dropout"] == names


def test_adaptors_are_the_identity_where_widths_agree_and_are_not_deployed() -> None:
    made = method()
    assert isinstance(made.adaptors[0], nn.Identity)
    assert [tuple(each.weight.shape) for each in made.adaptors[1:]] == [(6, 4, 1, 1), (7, 5, 1, 1)]
    assert all(each.bias is not None for each in made.adaptors[1:])
    assert all(each.bias is None for each in method(adaptor_bias=False).adaptors[1:])
    assert set(made.deployable().state_dict()) == set(made.student.state_dict())
    assert not any(module._forward_hooks for module in made.deployable().modules())


def test_stages_say_what_they_train_on_which_data() -> None:
    stages = {stage.name: stage for stage in method(finetune=2, finetune_rate=0.1).stages()}
    assert list(stages) == ["stage1", "stage2", "stage3", "head", "finetune"]
    assert [stage.data for stage in stages.values()] == ["train", "train", "train", "labelled", "labelled"]
    assert [stage.scored for stage in stages.values()] == [False, False, False, True, True]
    assert [stage.epochs for stage in stages.values()] == [None, None, None, None, 2]
    assert [stage.share for stage in stages.values()][:4] == [1, 1, 1, 1]
    assert [stage.updates[0].rate for stage in stages.values()] == [1, 1, 1, 1, 0.1]
    assert [stage.begin is None for stage in stages.values()] == [True, True, True, False, True]


def test_a_fine_tuning_phase_trains_all_of_the_student() -> None:
    made, batch = method(finetune=1), images(dtype=torch.float64)
    stage = list(made.stages())[-1]
    before = state(made)
    train(made, stage, batch)
    assert changed(before, made) == {name for name in before if name.startswith("student.")}


@pytest.mark.parametrize(
    ("variant", "phases", "terms"),
    [
        ("last_stage", ["backbone", "head"], {"stage3"}),
        ("all_at_once", ["backbone", "head"], {"stage1", "stage2", "stage3"}),
        ("joint", ["joint"], {"hard", "stage1", "stage2", "stage3"}),
    ],
)
def test_variants(variant: str, phases: list[str], terms: set[str]) -> None:
    made, batch = method(variant=variant), images(dtype=torch.float64)
    stages = list(made.stages())
    assert [stage.name for stage in stages] == phases
    before = state(made)
    first = made(batch, update=stages[0].updates[0].name)
    assert set(first.terms) == terms
    torch.testing.assert_close(first.total, torch.stack([*first.terms.values()]).sum())
    train(made, stages[0], batch)
    moved = {name.split(".")[1] for name in changed(before, made) if name.startswith("student.")}
    assert moved == {"stem", "layer1", "layer2", "layer3"} | ({"fc"} if variant == "joint" else set())
    adaptors = {name.split(".")[1] for name in changed(before, made) if name.startswith("adaptors.")}
    assert adaptors == ({"2"} if variant == "last_stage" else {"1", "2"})
    if variant != "joint":
        before = state(made)
        train(made, stages[1], batch)
        assert changed(before, made) == {"student.fc.weight", "student.fc.bias"}


def test_joint_has_the_only_weight() -> None:
    batch = images(dtype=torch.float64)
    found = method(variant="joint", joint_weight=0.1)(batch)  # its one update is the usual one
    assert found.weights == {"hard": 1.0, "stage1": 0.1, "stage2": 0.1, "stage3": 0.1}
    plain = method(variant="joint")(batch)
    torch.testing.assert_close(found.terms, plain.terms)


def test_earlier_stages_can_be_left_trainable() -> None:
    made, batch = method(freeze_previous=False), images(dtype=torch.float64)
    stage = list(made.stages())[1]
    made.enter(stage)
    assert set(made(batch, update="stage2").terms) == {"stage2"}
    before = state(made)
    train(made, stage, batch)
    names = ("student.stem.", "student.layer1.", "student.layer2.", "adaptors.1.")
    assert changed(before, made) == {name for name in before if name.startswith(names)}
    assert all(made.get_submodule(name.strip(".")).training for name in names)


class Dropping(nn.Module):
    """Two stages and a head with a dropout of their own each."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 3, 3), nn.Dropout(0.5)) for c in (2, 3))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def test_dropout_is_active_in_the_phase_of_its_stage_alone() -> None:
    taps = {side: ["stages.0", "stages.1"] for side in ("student", "teacher")}
    made = SSKD(Dropping(), Dropping(), taps=taps, example=images())
    names = ["stages.0.1", "stages.1.1", "head.0"]
    for stage, active in zip(made.stages(), names, strict=True):
        made.enter(stage)
        made.train()
        assert [name for name in names if made.student.get_submodule(name).training] == [active]


@pytest.mark.parametrize(
    ("variant", "given", "epochs"),
    [
        ("sskd", 2, [2, 2, 2, 2]),
        ("sskd", [1, 0, 3, 4], [1, 0, 3, 4]),
        ("last_stage", [1, 0, 3, 4], [4, 4]),
        ("all_at_once", 2, [6, 2]),
        ("joint", [1, 2, 3, 4], [10]),
    ],
)
def test_merged_phases_get_the_epochs_of_those_they_replace(
    variant: str, given: int | list[int], epochs: list[int]
) -> None:
    assert [stage.epochs for stage in method(variant=variant, phase_epochs=given).stages()] == epochs


def test_shares_of_merged_phases_count_those_they_replace() -> None:
    shares = {v: [s.share for s in method(variant=v).stages()] for v in ("last_stage", "joint")}
    assert shares == {"last_stage": [3, 1], "joint": [4]}


def test_the_head_is_made_afresh_from_its_seed_and_draws_nothing_else() -> None:
    heads = []
    for seed in (4, 4, 5):
        made = method(seed=seed)
        torch.manual_seed(len(heads))
        outside, before = torch.get_rng_state(), state(made)
        data = object()
        assert list(made.stages())[-1].begin(data) is data
        assert torch.equal(torch.get_rng_state(), outside)
        assert changed(before, made) == {"student.fc.weight", "student.fc.bias"}
        heads.append(made.student.fc.weight.detach().clone())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_seed_of_the_head_follows_the_generator_and_is_kept_in_the_state() -> None:
    made = []
    for seed in (1, 1, 2):
        student, teacher = cnn(3, 4, seed=1), cnn(3, 6, seed=2)
        torch.manual_seed(seed)
        taps = {side: ["layer1", "layer2"] for side in ("student", "teacher")}
        made.append(SSKD(student, teacher, taps=taps, example=images()))

    def head(of: SSKD) -> Tensor:
        list(of.stages())[-1].begin(None)
        return of.student.fc.weight.detach().clone()

    one, two, other = (head(each) for each in made)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    made[2].load_state_dict(made[0].state_dict())
    assert torch.equal(head(made[2]), one)


def test_the_head_can_start_from_the_teachers_or_as_it_is() -> None:
    student, teacher = cnn(3, 4, 7, seed=1), cnn(3, 6, 7, seed=2)
    made = SSKD(student, teacher, taps=TAPS, example=images(), head_init="teacher")
    list(made.stages())[-1].begin(None)
    assert torch.equal(student.fc.weight, teacher.fc.weight)
    assert torch.equal(student.fc.bias, teacher.fc.bias)
    assert student.fc.weight is not teacher.fc.weight
    assert list(method(head_init="keep").stages())[-1].begin is None


def test_batchmean_sums_over_a_samples_values() -> None:
    batch = images(dtype=torch.float64)
    mean, summed = (method(reduction=name)(batch, update="stage2") for name in ("mean", "batchmean"))
    torch.testing.assert_close(summed.terms["stage2"], mean.terms["stage2"] * 6 * 4 * 4)


def test_sums_are_divided_by_the_count_of_the_loop() -> None:
    made, batch = method(), images(dtype=torch.float64)
    counted = {**batch, "count": {"samples": 16.0, "targets": 16.0}}
    for update in ("stage1", "stage3", "head"):
        torch.testing.assert_close(made(counted, update=update).total, made(batch, update=update).total / 2)


def test_maps_of_unequal_size_are_averaged_where_asked() -> None:
    taps = {"student": ["layer1", "layer3"], "teacher": ["layer2", "layer3"]}
    made, batch = method(taps=taps, pool=True), images(dtype=torch.float64)
    found = made(batch, update="stage1").terms["stage1"]
    own, other = made.student_taps(batch)["layer1"], made.teacher(batch)["layer2"]
    expected = F.mse_loss(made.adaptors[0](F.adaptive_avg_pool2d(own, 4)), other)
    torch.testing.assert_close(found, expected)


def sequence_method(batch: dict[str, object], **settings: object) -> SSKD:
    taps = {"student": ["blocks.0", "blocks.1"], "teacher": ["blocks.0", "blocks.2"]}
    torch.manual_seed(3)
    return SSKD(encoder(4, seed=1), encoder(6, 3, seed=2), taps=taps, example=batch, **settings)


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_padded_positions_do_not_count(reduction: str) -> None:
    batch = texts()
    made = sequence_method(batch, reduction=reduction)
    assert isinstance(made.adaptors[0], nn.Linear)
    found = made(batch, update="stage1").terms["stage1"]
    own, other = made.student_taps(batch)["blocks.0"], made.teacher(batch)["blocks.0"]
    mask = batch["inputs"]["attention_mask"].bool()
    squares = (made.adaptors[0](own) - other)[mask].square()
    torch.testing.assert_close(found, squares.mean() if reduction == "mean" else squares.sum() / len(mask))


def test_token_stages_train_the_embedding_first() -> None:
    batch = texts()
    made = sequence_method(batch)
    before = state(made)
    train(made, next(iter(made.stages())), unlabelled(batch))
    parts = {name.rsplit(".", 1)[0] for name in changed(before, made)}
    assert parts == {"student.embed", "student.blocks.0.0", "adaptors.0"}


def test_vectors_are_mimicked_by_a_linear_map() -> None:
    class Perceptron(nn.Sequential):
        def __init__(self, width: int) -> None:
            super().__init__(nn.Flatten(), nn.Linear(128, width), nn.ReLU(), nn.Linear(width, 4))

    taps = {"student": ["2"], "teacher": ["2"]}
    made = SSKD(Perceptron(3), Perceptron(5), taps=taps, example=images())
    assert tuple(made.adaptors[0].weight.shape) == (5, 3)
    assert train(made, next(iter(made.stages())), images())[-1] > 0


def test_bfloat16_autocast_and_a_half_teacher_file() -> None:
    made, batch = method(dtype=torch.float32), images()
    exact = [made(batch, update=update).total for update in made.phases]
    half = copy.deepcopy(made.teacher.model).half()
    other = SSKD(made.student, Teacher(half), taps=TAPS, example=batch)
    other.load_state_dict(made.state_dict())
    halves = [other(batch, update=update).total for update in other.phases]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = [made(batch, update=update).total for update in made.phases]
    for one, two, three in zip(exact, halves, mixed, strict=True):
        assert two.dtype == three.dtype == torch.float32
        torch.testing.assert_close(two, one, rtol=0.05, atol=0.05)
        torch.testing.assert_close(three, one, rtol=0.1, atol=0.1)


def test_a_student_in_bfloat16_meets_adaptors_in_float32() -> None:
    made, batch = method(dtype=torch.float32), images()
    made.student.bfloat16()
    for update in made.phases:
        loss = made(batch, update=update).total
        assert loss.dtype == torch.float32
        assert loss.isfinite()


def test_equal_networks_in_eval_mode_are_the_minimum_of_the_card() -> None:
    network = cnn(3, 4, seed=1)
    taps = {side: ["layer1", "layer2"] for side in ("student", "teacher")}
    made = SSKD(network, copy.deepcopy(network), taps=taps, example=images()).eval()
    assert made(images(), update="stage1").terms["stage1"].item() == SSKD.card.minimum["stage1"]
    assert made(images(), update="stage2").terms["stage2"].item() == 0
