"""What SSKD refuses, how it cuts networks, and how it trains in the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from limbeck import fit
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, RunError
from limbeck.methods import SSKD
from tests.methods.tapped import changed, cnn, dataset, encoder, images, state, texts
from tests.methods.test_sskd import TAPS, method, train


def pair(student: list[str], teacher: list[str]) -> dict[str, list[str]]:
    return {"student": student, "teacher": teacher}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"taps": pair(["layer1"], ["layer1", "layer2"])}, "1 student taps and 2 teacher taps"),
        ({"taps": pair(["layer1"], ["layer2"])}, "stage 1 has features of different height and width"),
        (
            {"taps": pair(["layer1", "fc.input"], ["layer1", "layer2"])},
            "stage 2 has features of different rank",
        ),
        ({"taps": pair(["layer2", "layer1"], ["layer1", "layer2"])}, "different height and width"),
        (
            {"taps": pair(["layer1", "layer1"], ["layer1", "layer2"])},
            "student layer 'layer1' ends two stages",
        ),
        (
            {"taps": pair(["layer1", "layer2"], ["layer1", "layer1"])},
            "teacher layer 'layer1' ends two stages",
        ),
        ({"taps": pair(["stem", "layer1"], ["layer1", "stem"])}, "teacher taps are out of order: 'stem'"),
        ({"taps": pair(["layer1", "stem"], ["stem", "layer1"])}, "student taps are out of order: 'stem'"),
        ({"taps": pair(["stem", "layer1.0", "layer1.1"], ["stem", "layer1.0", "layer1.2"])}, ""),
        (
            {"taps": pair(["layer1.1", "layer1.2"], ["layer1.1", "layer1.2"])},
            "stage 2 (up to 'layer1.2') has no",
        ),
        ({"taps": pair(["fc"], ["fc"])}, "the head (after 'fc') has no parameter to train"),
        ({"variant": "both"}, "needed sskd, last_stage, all_at_once, joint"),
        ({"reduction": "sum"}, "needed mean, batchmean"),
        ({"head_init": "zeros"}, "needed fresh, teacher, keep"),
        ({"joint_weight": 1.0}, "joint_weight 1.0 with the variant sskd, which has no weight"),
        ({"variant": "joint", "joint_weight": -1.0}, "joint_weight -1.0; needed a number >= 0"),
        ({"variant": "joint", "head_init": "teacher"}, "the variant joint, which has no head phase"),
        ({"phase_epochs": [1, 2]}, "phase_epochs [1, 2]; needed a number >= 0, or 4"),
        ({"phase_epochs": -1}, "phase_epochs -1"),
        ({"phase_epochs": [1, 1, 1, -1]}, "phase_epochs [1, 1, 1, -1]"),
        ({"finetune": -1}, "finetune -1"),
        ({"finetune_rate": 0.0}, "finetune_rate 0.0"),
        ({"head_init": "teacher"}, "the heads have unequal shapes: the student's [[(4, 5), (4,)]]"),
        ({"stage_modules": [["stem"], ["layer1"]]}, "stage_modules has 2 lists for 3 taps"),
        ({"stage_modules": [["stem"], ["layer1"], ["layr2"]]}, "has no layer 'layr2'"),
        ({"stage_modules": [["stem", "layer1"], ["layer1.0"], ["layer3"]]}, "stages must not overlap"),
        (
            {"stage_modules": [["stem"], ["layer2", "layer1"], ["layer3"]]},
            "is listed in stage 2, but works in stage 1",
        ),
        ({"head_modules": ["layer3", "fc"]}, "is listed in the head, but works in stage 3"),
    ],
)
def test_wrong_requests_are_refused(settings: dict[str, object], message: str) -> None:
    if not message:
        method(**settings)  # the ends of stages may lie anywhere
        return
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)


def test_an_update_of_no_phase_is_refused_with_the_loop_to_write() -> None:
    with pytest.raises(RequestError) as caught:
        method()(images(dtype=torch.float64))
    assert "there is no update 'student'; sskd trains in phases: stage1, stage2, stage3, head" in str(
        caught.value
    )
    assert "method(batch, update=stage.updates[0].name)" in caught.value.fix


def test_tokens_of_unequal_number_are_refused() -> None:
    class Short(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder(4)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.encoder(input_ids[:, :3], attention_mask[:, :3])

    taps = pair(["encoder.blocks.0"], ["blocks.0"])
    with pytest.raises(RequestError, match=r"different numbers of tokens: .*\(6, 3, 4\).*\(6, 5, 4\)"):
        SSKD(Short(), encoder(4), taps=taps, example=texts())


def test_shapes_that_change_later_are_refused_by_stage() -> None:
    made, batch = method(), images(dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    student.layers["layer2"] = student["layer2"][:, :, :3]
    with pytest.raises(RequestError, match="stage 2 has features of different height and width"):
        made.losses(student, teacher, batch)


@pytest.mark.parametrize("update", ["head", "finetune"])
def test_labels_are_asked_for_and_checked_where_they_are_used(update: str) -> None:
    made, batch = method(finetune=1), images(dtype=torch.float64)
    with pytest.raises(RequestError, match="label 4 for 4 classes"):
        made({**batch, "targets": batch["targets"] + 1}, update=update)
    del batch["targets"]
    with pytest.raises(RequestError, match="the batch has no targets"):
        made(batch, update=update)
    assert made(batch, update="stage1").total.isfinite()
    with pytest.raises(RequestError, match="the batch has no targets"):
        method(variant="joint")(batch)


def test_a_teacher_put_into_train_mode_is_put_back() -> None:
    made, batch = method(), images(dtype=torch.float64)
    made.teacher.model.train()
    before = state(made.teacher.model)
    one, two = (made(batch, update="stage2").total for _ in range(2))
    assert torch.equal(one, two)
    assert changed(before, made.teacher.model) == set()


class Pooled(nn.Module):
    """A stage that ends with one value a channel and a batch norm over it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(x).flatten(1))


def test_one_value_a_channel_is_refused_where_a_batch_norm_trains() -> None:
    made = SSKD(Pooled(), Pooled(), taps=pair(["layer1"], ["layer1"]), example=images())
    stage, head = made.stages()
    made.enter(stage)
    with pytest.raises(RequestError, match=r"phase stage1: batch norm 'layer1.2' gets one value a channel"):
        made(images(1), update="stage1")
    assert made(images(2), update="stage1").total.isfinite()
    made.enter(head)
    assert made(images(1), update="head").total.isfinite()
    assert made.eval()(images(1), update="stage1").total.isfinite()


class Shared(nn.Module):
    """One convolution that two stages use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.shared = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.shared(self.stem(x)))
        x = self.relu(self.last(self.shared(x)))
        return self.fc(x.mean((2, 3)))


def test_shared_modules_must_be_listed() -> None:
    taps = pair(["relu#1", "relu#2"], ["relu#1", "relu#2"])
    with pytest.raises(RequestError, match="shared is called in stage 1 and stage 2") as caught:
        SSKD(Shared(), Shared(), taps=taps, example=images())
    assert "stage_modules = " in caught.value.fix
    lists = {"stage_modules": [["stem", "shared"], ["last"]], "head_modules": ["fc"]}
    made = SSKD(Shared(), Shared(), taps=taps, example=images(), **lists)
    for stage, moved in zip(made.stages(), ["stem shared", "last", "fc"], strict=True):
        before = state(made)
        train(made, stage, images())
        assert {name.split(".")[1] for name in changed(before, made)} == set(moved.split())


class Skip(nn.Module):
    """A branch computed before the first tap and used after it."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(2, 3, 1)
        self.first = nn.Conv2d(2, 3, 1)
        self.second = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.branch(x)
        return self.fc((self.second(self.first(x)) + beside).mean((2, 3)))


def test_modules_that_skip_a_stage_must_be_listed() -> None:
    taps = pair(["first", "second"], ["first", "second"])
    with pytest.raises(RequestError, match="branch is called in stage 1, but feeds the head first"):
        SSKD(Skip(), Skip(), taps=taps, example=images())
    made = SSKD(Skip(), Skip(), taps=taps, example=images(), head_modules=["branch", "fc"])
    before = state(made)
    train(made, list(made.stages())[-1], images())
    assert {name.split(".")[1] for name in changed(before, made)} == {"branch", "fc"}


class Positions(nn.Module):
    """Parameters held by the network itself, attention whose parts are never called, an idle layer."""

    def __init__(self, *, idle: bool = False) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 5, 4))
        self.embed = nn.Embedding(11, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.scale = nn.Parameter(torch.ones(4))
        self.fc = nn.Linear(4, 4)
        if idle:
            self.auxiliary = nn.Linear(4, 4)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.block(self.embed(input_ids) + self.positions)
        return self.fc((x * self.scale).mean(1))


def test_parameters_of_modules_with_children_belong_where_they_first_count() -> None:
    batch, taps = texts(), pair(["embed", "block"], ["embed", "block"])
    del batch["inputs"]["attention_mask"]
    made = SSKD(Positions(), Positions(), taps=taps, example=batch, head_init="keep")
    parts = [{unit.name for unit in made.split.holders(stage)} for stage in range(3)]
    assert parts[0] == {"embed"}
    assert parts[2] == {"fc", "scale"}
    assert {"positions", "block.self_attn", "block.linear1"} <= parts[1]
    before = state(made)
    stage = list(made.stages())[1]
    train(made, stage, batch)
    moved = changed(before, made)
    assert {"student.positions", "student.block.self_attn.out_proj.weight"} <= moved
    assert not any(name.startswith(("student.embed", "student.fc", "student.scale")) for name in moved)
    made.enter(stage)
    assert made.student.block.self_attn.training


class NormAct(nn.BatchNorm2d):
    """A batch norm that holds its activation, and has buffers but no parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Acting(nn.Module):
    """Two stages that end with such a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 3, 3), NormAct(3)) for c in (2, 3))
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def test_modules_that_hold_state_and_children_work_in_one_stage_as_a_whole() -> None:
    taps = pair(["stages.0", "stages.1"], ["stages.0", "stages.1"])
    made = SSKD(Acting(), Acting(), taps=taps, example=images())
    for number, stage in enumerate(list(made.stages())[:2]):
        before = state(made)
        train(made, stage, images())
        names = ("0.weight", "0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
        assert changed(before, made) == {f"student.stages.{number}.{name}" for name in names}
    lists = [["stages.0.0", "stages.0.1.act"], ["stages.1"]]
    with pytest.raises(RequestError, match=r"stages\.0\.1\.act is a part of a module that works as a whole"):
        SSKD(Acting(), Acting(), taps=taps, example=images(), stage_modules=lists)


def test_a_head_that_cannot_be_made_afresh_is_refused() -> None:
    batch, taps = texts(), pair(["block"], ["block"])
    del batch["inputs"]["attention_mask"]
    with pytest.raises(RequestError, match="scale of the head has parameters without") as caught:
        SSKD(Positions(), Positions(), taps=taps, example=batch)
    assert caught.value.fix == 'head_init = "keep"'


def test_parameters_that_never_train_are_warned_of() -> None:
    batch, taps = texts(), pair(["embed", "block"], ["embed", "block"])
    del batch["inputs"]["attention_mask"]
    with pytest.warns(UserWarning, match="auxiliary of the student runs neither in a stage nor in the head"):
        SSKD(Positions(idle=True), Positions(), taps=taps, example=batch, head_init="keep")
    with pytest.warns(UserWarning, match=r"layer2\.0, layer2\.1 of the student"):
        SSKD(
            cnn(3, 4, 5),
            cnn(3, 4, 5),
            taps=pair(["layer1", "layer3"], ["layer1", "layer3"]),
            example=images(),
            stage_modules=[["stem", "layer1"], ["layer3"]],
        )


class Wrapped(nn.Module):
    """A network behind its preprocessing, whose names are transparent."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.preprocessing = nn.BatchNorm2d(2, affine=False).eval()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.preprocessing(x))


def test_a_network_inside_its_preprocessing_is_cut_as_it_is() -> None:
    student = Wrapped(cnn(3, 4, 5))
    made = SSKD(student, cnn(3, 6, 7), taps=TAPS, example=images())
    for stage, moved in zip(made.stages(), ["stem layer1", "layer2", "layer3", "fc"], strict=True):
        before = state(made.student.body)
        train(made, stage, images())
        assert {name.split(".")[0] for name in changed(before, made.student.body)} == set(moved.split())


def fitted(settings: dict[str, object], epochs: int = 6, **further: object):
    torch.manual_seed(7)
    made = SSKD(cnn(6, 8, seed=1), cnn(8, 12, seed=2), example=images(), **settings)
    training = Training(epochs=epochs, batch_size=8, learning_rate=0.05)
    return made, fit(made, dataset(40, labelled=16), dataset(16), training, **further)


def test_it_trains_in_the_engine_without_labels_first() -> None:
    _, done = fitted({})
    assert [entry["stage_name"] for entry in done.history] == ["stage1"] * 2 + ["stage2"] * 2 + ["head"] * 2
    for name in ("stage1", "stage2"):
        losses = [entry["terms"][name] for entry in done.history if entry["stage_name"] == name]
        assert losses[1] < losses[0]
        assert all(set(entry["terms"]) == {name} for entry in done.history if entry["stage_name"] == name)
    assert all(bool(entry["scores"]) == (entry["stage_name"] == "head") for entry in done.history)


def test_a_loss_that_is_not_finite_stops_the_run_by_name() -> None:
    teacher = cnn(8, 12, seed=2)
    teacher.layer2[0].weight.data.fill_(float("inf"))
    made = SSKD(cnn(6, 8, seed=1), teacher, example=images())
    with pytest.raises(RunError, match=r"not finite: stage2 = nan \(stage 2, epoch 1, step 1"):
        fit(made, dataset(40), settings=Training(epochs=3, batch_size=8))


def test_what_rounding_leaves_goes_to_the_head() -> None:
    _, done = fitted({}, epochs=5)
    assert [entry["stage_name"] for entry in done.history] == ["stage1", "stage2", "head", "head", "head"]
    _, done = fitted({"finetune": 1}, epochs=5)
    assert [entry["stage_name"] for entry in done.history] == ["stage1", "stage2", "head", "head", "finetune"]


def test_phases_of_no_epoch_leave_everything_as_it_was() -> None:
    torch.manual_seed(7)
    made = SSKD(cnn(6, 8, seed=1), cnn(8, 12, seed=2), example=images(), phase_epochs=[0, 1, 0])
    before = state(made)
    fit(made, dataset(40, labelled=16), dataset(16), Training(epochs=1, batch_size=8))
    assert {".".join(name.split(".")[:2]) for name in changed(before, made)} == {
        "student.layer2",
        "adaptors.1",
    }


def test_a_run_stopped_at_the_switch_of_a_stage_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    class Stopped(RuntimeError):
        pass

    whole, _ = fitted({})
    torch.manual_seed(7)
    made = SSKD(cnn(6, 8, seed=1), cnn(8, 12, seed=2), example=images())
    training = Training(epochs=6, batch_size=8, learning_rate=0.05)
    entered = made.enter

    def enter(stage: object) -> None:
        if stage.name == "head":
            raise Stopped
        entered(stage)

    made.enter = enter
    with pytest.raises(Stopped):
        fit(made, dataset(40, labelled=16), dataset(16), training, folder=tmp_path)
    again, _ = fitted({}, folder=tmp_path, resume=True)
    assert changed(state(whole), again) == set()
