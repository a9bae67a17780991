"""What SimKD refuses, and what it does with odd data."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Teacher, fit
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, RunError
from limbeck.methods import SimKD
from limbeck.methods._reuse import aligned
from limbeck.record import Record
from limbeck.task import MultiLabel, Regression
from tests.methods.tapped import Block, cnn, dataset, images
from tests.methods.test_simkd import entered, method


def taps(student: str, teacher: str) -> dict[str, dict[str, list[str]]]:
    return {"taps": {"student": [student], "teacher": [teacher]}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 0}, "factor 0; needed 1 to the channels of the teacher"),
        ({"factor": 7}, "factor 7 for 6 channels of the teacher; needed 1 to 6"),
        ({"variant": "simkd+"}, "needed simkd, joint, sequential"),
        ({"joint_target": "logits"}, "needed labels, teacher"),
        ({"joint_weight": -1.0}, "joint_weight -1.0; needed a number >= 0"),
        ({"temperature": 0.0}, "emperature 0"),
        (taps("layer2", "layer1"), "teacher layer1 has 4 channels and the classifier fc takes 6"),
        (taps("layer9", "layer2"), "no layer 'layer9'"),
        (taps("layer2", "layer9"), "no layer 'layer9'"),
        ({"taps": {"student": ["layer1", "layer2"]}}, "reads 1 student layer, and 2 are named"),
        ({"taps": {"student": ["layer2"], "teacher": []}}, "reads 1 teacher layer, and 0 are named"),
        ({"taps": {"pupil": ["layer2"]}}, "needed the keys student and teacher"),
        ({"layouts": {"pupil": {}}}, "layouts of 'pupil'"),
        ({"layouts": {"student": {"layer2": "blc"}}}, "the layout blc is [B, L, C]"),
        ({"layouts": {"student": {"layer7": "bchw"}}}, "layouts name 'layer7', which is not tapped"),
        ({"reuse_from": "layer9"}, "reuse_from 'layer9' is no module that the teacher calls"),
        ({"reuse_from": "layer2", **taps("layer2", "layer2")}, "reuse_from says which value"),
    ],
)
def test_wrong_requests_are_refused_with_a_way_out(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        method(**settings)
    assert message in str(caught.value)
    assert caught.value.fix or caught.value.near or "needed" in message or "emperature" in message


def test_a_batch_and_one_kind_of_teacher_are_needed() -> None:
    with pytest.raises(RequestError, match="none was given"):
        SimKD(cnn(3, 4), cnn(4, 6))
    with pytest.raises(RequestError, match="give one of the two"):
        SimKD(cnn(3, 4), example=images())
    with pytest.raises(RequestError, match="give one of the two"):
        SimKD(cnn(3, 4), cnn(4, 6), teachers=[cnn(4, 6)], example=images())


def other_classes(number: int) -> nn.Module:
    teacher = cnn(4, 6, seed=2)
    teacher.fc = nn.Linear(6, number)
    return teacher


def test_other_classes_are_explained_and_what_works_then_does() -> None:
    with pytest.raises(RequestError, match="has 7 outputs and the student 4; simkd deploys") as caught:
        SimKD(cnn(3, 4), other_classes(7), example=images())
    assert "sequential" in str(caught.value.fix)
    assert "joint" in str(caught.value.fix)
    for variant in ("sequential", "joint"):
        made = SimKD(cnn(3, 4), other_classes(7), example=images(), variant=variant)
        for stage in made.stages():
            made.enter(stage)
            made(images(), update=stage.updates[0].name).total.backward()
        assert made.deployable().eval()(images()["inputs"]).shape == (8, 4)


def test_one_value_a_channel_is_refused_and_one_sample_of_a_map_is_not() -> None:
    made = entered(method(taps={"student": ["layer2"], "teacher": ["fc.input"]}))
    with pytest.raises(RequestError, match="one value a channel"):
        made(images(1, dtype=torch.float64))
    assert made(images(2, dtype=torch.float64)).total.isfinite()
    assert entered(method())(images(1, dtype=torch.float64)).total.isfinite()


def test_a_class_may_be_absent() -> None:
    made, batch = entered(method(variant="joint")), images(4, dtype=torch.float64)
    losses = made({**batch, "targets": torch.zeros(4, dtype=torch.long)})
    assert all(term.isfinite() for term in losses.terms.values())


def test_joint_needs_labels() -> None:
    with pytest.raises(RequestError, match='variant = "joint" needs labels'):
        method(variant="joint")({"inputs": images(4, dtype=torch.float64)["inputs"]})


class Signed(nn.Module):
    """A network without a ReLU before its mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = Block(2, width, 2)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.stem(x)).mean((2, 3)))


def test_negative_features_have_no_last_relu_and_one_that_is_asked_for_is_refused() -> None:
    torch.manual_seed(0)
    networks = cnn(3, 4), Signed(5)
    made = SimKD(*networks, example=images())
    assert not made.tails[0].plan.final_relu
    with pytest.raises(RequestError, match="which the projector's last ReLU cannot give") as caught:
        SimKD(*networks, example=images(), final_relu=True)
    assert "final_relu = false" in str(caught.value.fix)


class Functional(Signed):
    """Its last ReLU is no module."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.last(self.stem(x))).mean((2, 3)))


def test_a_relu_outside_of_modules_is_taken_by_the_target() -> None:
    torch.manual_seed(0)
    teacher = Functional(5)
    for given in ({}, taps("layer2", "last")):
        made = entered(SimKD(cnn(3, 4), teacher, example=images(), **given))
        batch = images()
        record = made.teacher(batch)
        assert made.heads[0].relu
        assert made.tails[0].plan.final_relu
        source = made.student_taps(batch)["layer2"]
        wanted = F.mse_loss(made.tails[0].projector(source), record["last"].relu())
        assert made.losses(made.student_taps(batch), record, batch).total.item() == pytest.approx(
            wanted.item(), rel=1e-6
        )


class Deep(Signed):
    """Two Linear layers after the mean."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.hidden = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.last(self.stem(x)).mean((2, 3))).tanh())


class NoLinear(Signed):
    """Something follows the Linear."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class Scaled(Signed):
    """Its classifier takes the mean of a map times a factor."""

    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.last(self.stem(x)) * self.factor).mean((2, 3)))


def test_the_parts_make_the_outputs_of_the_teacher_to_one_in_100000() -> None:
    torch.manual_seed(0)
    teacher = Scaled(5)
    nn.init.zeros_(teacher.fc.bias)
    teacher.factor = 1 + 1e-6
    assert SimKD(cnn(3, 4), teacher, example=images(), **taps("layer2", "last")).cut == "layer2"
    teacher.factor = 1 + 5e-5
    with pytest.raises(RequestError, match="does not give the teacher's outputs"):
        SimKD(cnn(3, 4), teacher, example=images(), **taps("layer2", "last"))


def test_a_value_that_is_changed_in_place_later_is_no_cut() -> None:
    student = cnn(3, 4)
    student.layer2[2].inplace = True
    with pytest.raises(RequestError, match=r"'layer2\.1' is changed in place after it returned") as caught:
        SimKD(student, cnn(4, 6), example=images(), **taps("layer2.1", "layer2"))
    assert caught.value.near


def test_a_head_that_is_no_linear_map_of_a_mean_is_explained() -> None:
    torch.manual_seed(0)
    with pytest.raises(RequestError, match="averages no map over space") as caught:
        SimKD(cnn(3, 4), Deep(5), example=images())
    assert "fc.input" in str(caught.value.fix)
    assert "reuse_from" in str(caught.value.fix)
    made = SimKD(cnn(3, 4), Deep(5), example=images(), taps={"teacher": ["fc.input"]})
    assert made.deployable().eval()(images()["inputs"]).shape == (8, 4)
    with pytest.raises(RequestError, match="does not end in one Linear"):
        SimKD(cnn(3, 4), NoLinear(5), example=images())
    with pytest.raises(RequestError, match="does not give the teacher's outputs"):
        SimKD(cnn(3, 4), Signed(5), example=images(), **taps("layer2", "stem"))


def test_layers_that_are_no_chain_are_not_reused() -> None:
    with pytest.raises(RequestError, match="is no chain of modules"):
        SimKD(cnn(3, 4), Deep(5), example=images(), reuse_from="last")


def test_a_map_before_its_last_relu_is_no_map_of_the_classifier() -> None:
    """Tapped before the ReLU of the block, the ReLU is found and taken by the target."""
    made = method(taps={"student": ["layer2"], "teacher": ["layer2.1"]})
    assert made.heads[0].relu


def test_maps_of_crossed_proportions_are_refused() -> None:
    with pytest.raises(RequestError, match=r"layer 'a' is 4 x 2 and teacher layer 'b' 2 x 4"):
        aligned(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 2, 4), "a", "b")

    networks = nn.Sequential(nn.AvgPool2d((1, 2)), cnn(3, 4)), nn.Sequential(nn.AvgPool2d((2, 1)), cnn(4, 6))
    maps = {side: {"1.layer2": "bchw"} for side in ("student", "teacher")}
    with pytest.raises(RequestError, match=r"is 4 x 2 and teacher layer '1\.layer2' 2 x 4") as caught:
        SimKD(*networks, example=images(), layouts=maps, **taps("1.layer2", "1.layer2"))
    assert "like proportions" in str(caught.value.fix)


def pictures(height: int, width: int) -> dict[str, Tensor]:
    return {"inputs": torch.rand(4, 2, height, width, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize("size", [(9, 9), (7, 11), (8, 12)])
def test_odd_sizes_pass(size: tuple[int, int]) -> None:
    made = entered(SimKD(cnn(3, 9), cnn(4, 10), example=pictures(*size)))
    made(pictures(*size)).total.backward()
    assert made.deployable().eval()(pictures(*size)["inputs"]).shape == (4, 4)


def test_windows_that_overlap_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="averages 7 x 7 to 4 x 4 with windows that overlap"):
        SimKD(cnn(3), cnn(4, 6), example=pictures(7, 7))


def test_another_size_after_averaging_is_refused_at_deployment() -> None:
    made = SimKD(cnn(3), cnn(4, 6), example=pictures(8, 8))
    deployed = made.deployable().eval()
    assert deployed(pictures(8, 8)["inputs"]).shape == (4, 4)
    with pytest.raises(RequestError, match="its averaging was made for 8 x 8") as caught:
        deployed(pictures(12, 12)["inputs"])
    assert "size" in str(caught.value.fix)
    free = SimKD(cnn(3, 4), cnn(4, 6), example=pictures(8, 8)).deployable().eval()
    assert free(pictures(12, 12)["inputs"]).shape == (4, 4)


def test_records_of_another_shape_are_refused() -> None:
    made, batch = entered(method()), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    for value in (teacher["layer2"][:2], teacher["layer2"][:, :5]):
        with pytest.raises(RequestError, match="needed 4 samples of 6 channels"):
            made.losses(student, Record(None, {"layer2": value}), batch)
    with pytest.raises(RequestError, match=r"the layout bchw is \[B, C, H, W\]"):
        made.losses(student, Record(None, {"layer2": teacher["layer2"].mean((2, 3))}), batch)


def test_features_that_are_not_finite_are_refused() -> None:
    made, batch = entered(method()), images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    broken = teacher["layer2"].clone()
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(RunError, match="teacher features at 'layer2' are not finite in 1 of 4 rows"):
        made.losses(student, Record(None, {"layer2": broken}), batch)


def test_constant_features_give_finite_losses_and_gradients() -> None:
    made, batch = entered(method()), images(4, dtype=torch.float64)
    student = made.student_taps(batch)
    flat = {"layer2": student["layer2"] * 0 + 0.5}
    losses = made.losses(
        Record(None, flat), Record(None, {"layer2": made.teacher(batch)["layer2"] * 0}), batch
    )
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in made.tails[0].projector.parameters())


def test_half_precision_is_compared_in_single() -> None:
    torch.manual_seed(0)
    teacher = cnn(4, 6).to(torch.bfloat16)
    made = entered(SimKD(cnn(3, 4), Teacher(teacher), example=images()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = made({"inputs": images()["inputs"]})
    assert losses.total.dtype == torch.float32
    assert losses.total.isfinite()
    assert made.tails[0].classifier.weight.dtype == torch.float32


@pytest.mark.parametrize("task", [MultiLabel(4), Regression()])
def test_other_kinds_of_outputs_pass(task: MultiLabel | Regression) -> None:
    made = entered(SimKD(cnn(3, 4), cnn(4, 6), task=task, example=images(), variant="joint"))
    targets = torch.rand(8, 4).round() if isinstance(task, MultiLabel) else torch.rand(8, 4)
    assert made({"inputs": images()["inputs"], "targets": targets}).total.isfinite()


def test_a_last_batch_of_one_trains() -> None:
    made = SimKD(cnn(3, 4), cnn(4, 6), example=images())
    assert len(fit(made, dataset(9), settings=Training(epochs=1, batch_size=8)).history) == 1
