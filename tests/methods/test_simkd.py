"""SimKD: values against plain loops, what trains, what is deployed, its variants."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import fit
from limbeck.engine.settings import Training
from limbeck.methods import KD, Combination, Plain, SimKD
from limbeck.methods._composed import Composed, Projector
from limbeck.models import build
from limbeck.record import Record
from limbeck.task import Classification
from tests.methods import slow_simkd
from tests.methods.tapped import CLASSES, changed, cnn, dataset, images, state


def method(student: tuple[int, ...] = (3, 4), teacher: tuple[int, ...] = (4, 6), **settings: object) -> SimKD:
    """Two small networks in float64."""
    networks = cnn(*student, seed=1).double(), cnn(*teacher, seed=2).double()
    torch.manual_seed(3)
    return SimKD(*networks, example=images(4, dtype=torch.float64), **settings)


def entered(made: SimKD) -> SimKD:
    made.enter(made.stages()[0])
    return made


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((3, 4), (4, 6)), ((3,), (4, 6)), ((3, 4, 3), (4, 6))],
    ids=["equal sizes", "student larger", "teacher larger"],
)
def test_the_loss_equals_plain_loops(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    layer, other = f"layer{len(student)}", f"layer{len(teacher)}"
    made = entered(method(student, teacher, taps={"student": [layer], "teacher": [other]}))
    batch = images(4, seed=5, dtype=torch.float64)
    maps = made.teacher(batch)[other]
    own = made.student_taps(batch)[layer]
    layers = made.tails[0].projector.layers
    with torch.no_grad():
        wanted = slow_simkd.loss(own, maps, layers)
    losses = made(batch)
    assert set(losses.terms) == {"simkd"}
    assert losses.total.item() == pytest.approx(wanted, rel=1e-12)


def test_what_is_deployed_equals_plain_loops() -> None:
    made = entered(method())
    batch = images(4, dtype=torch.float64)
    made(batch)  # running statistics of their own
    deployed = made.deployable().eval()
    with torch.no_grad():
        own = made.eval().student_taps(batch)["layer2"]
        projected = slow_simkd.projected(own, made.tails[0].projector.layers, training=False)
        classifier = made.teacher.model.fc
        wanted = projected.mean((2, 3)) @ classifier.weight.T + classifier.bias
        assert torch.allclose(deployed(batch["inputs"]), wanted, rtol=0, atol=1e-12)


def test_only_the_encoder_and_the_projector_train() -> None:
    made = method().float()
    before = state(made)
    classifier = copy.deepcopy(made.teacher.model.fc.state_dict())
    trained = fit(made, dataset(16), settings=Training(epochs=2, batch_size=8)).method
    moved = changed(before, trained)
    assert not any(name.startswith(("student.fc", "tails.0.classifier")) for name in moved)
    assert {"student.stem.0.weight", "tails.0.projector.layers.0.weight"} <= moved
    reused = trained.deployable().tails[0].classifier
    assert torch.equal(reused.weight, classifier["weight"].float())
    assert torch.equal(reused.bias, classifier["bias"].float())
    groups = made.stages()[0].updates[0]
    assert not {id(p) for p in groups.parameters()} & {id(p) for p in made.tails[0].classifier.parameters()}


def test_a_perfect_projector_gives_no_loss_and_the_outputs_of_the_teacher() -> None:
    made = entered(method())
    batch = images(4, dtype=torch.float64)
    record = made.teacher(batch)

    class Perfect(nn.Module):
        def forward(self, source: torch.Tensor) -> torch.Tensor:
            return record["layer2"] + 0 * source.sum()

    made.tails[0].projector = Perfect()
    losses = made.losses(made.student_taps(batch), record, batch)
    assert losses.total.item() == 0.0
    assert torch.allclose(made.tails[0].answer(record["layer2"]), record.output, rtol=1e-12)


@pytest.mark.parametrize(
    ("student", "factor", "number"),
    [(256, 2, 214016), (256, 4, 70400), (256, 8, 26240), (512, 2, 246784), (704, 2, 271360)],
)
def test_the_projector_has_the_parameters_of_the_paper(student: int, factor: int, number: int) -> None:
    assert sum(p.numel() for p in Projector(student, 256, factor).parameters()) == number


def test_channels_of_the_teacher_are_divided_down_and_depthwise_has_nine_weights_a_channel() -> None:
    assert Projector(5, 11, 4).layers[3].weight.shape == (2, 2, 3, 3)
    assert Projector(5, 11, 4, depthwise=True).layers[3].weight.shape == (2, 1, 3, 3)
    assert not isinstance(Projector(5, 11, 4, final_relu=False).layers[8], nn.ReLU)


def test_the_deployed_network_is_as_large_as_in_the_paper() -> None:
    """ResNet-8x4 with the classifier of ResNet-32x4 at factor 2; the student's own classifier is gone."""
    networks = [
        build(name, num_classes=100, channels=3, size=32, options={}) for name in ("resnet8x4", "resnet32x4")
    ]
    made = SimKD(*networks, example={"inputs": torch.rand(2, 3, 32, 32)})
    assert sum(p.numel() for p in networks[1].parameters()) == 7_433_860
    assert sum(p.numel() for p in made.deployable().parameters()) == 1_447_556


def test_labels_play_no_part() -> None:
    made = entered(method())
    batch = images(4, dtype=torch.float64)
    unlabelled = {"inputs": batch["inputs"]}
    assert torch.equal(made.eval()(batch).total, made(unlabelled).total)


def test_the_teacher_gets_no_gradient_and_its_classifier_is_taken_again_at_the_start() -> None:
    made = method()
    with torch.no_grad():
        made.teacher.model.fc.weight.mul_(2)
    stage = made.stages()[0]
    assert stage.begin is not None
    stage.begin(dataset(8))
    assert torch.equal(made.tails[0].classifier.weight, made.teacher.model.fc.weight)
    made.enter(stage)
    made(images(4, dtype=torch.float64)).total.backward()
    assert all(p.grad is None for p in made.teacher.model.parameters())
    assert all(p.grad is None for p in made.student.fc.parameters())


def test_the_student_answers_as_the_teacher_does_without_a_label() -> None:
    """The promise of the paper; also where the teacher is trained after the method was built."""
    data = dataset(64)
    batch = data.batch(torch.arange(64))
    teacher = cnn(6, 8, seed=2)
    made = SimKD(cnn(4, 6, seed=1), teacher, example=batch)
    pupil = copy.deepcopy(teacher).requires_grad_(True)
    settings = Training(epochs=30, batch_size=16, learning_rate=0.01, optimizer="Adam")
    fit(Plain(pupil), data, settings=settings)
    teacher.load_state_dict(pupil.state_dict())
    fit(made, dataset(64, labelled=0), settings=settings)
    with torch.no_grad():
        said, wanted = made.deployable().eval()(batch["inputs"]), teacher(batch["inputs"])
    assert wanted.argmax(1).eq(batch["targets"]).float().mean() > 0.9
    assert said.argmax(1).eq(wanted.argmax(1)).float().mean() > 0.9


def test_more_of_the_teacher_is_reused() -> None:
    made = entered(method((3, 4), (4, 6, 5), reuse_from="layer3"))
    assert made.heads[0].path == "layer3.input"
    assert made.tails[0].plan.reused == ("layer3",)
    assert made.tails[0].plan.teacher == 6
    batch = images(4, dtype=torch.float64)
    made(batch).total.backward()
    assert all(p.grad is None for p in made.tails[0].reused.parameters())
    assert not any(module.training for module in made.tails[0].reused.modules())
    record = made.teacher(batch)
    said = made.teacher.model(batch["inputs"])
    assert torch.allclose(made.tails[0].answer(record["layer3.input"]), said, rtol=1e-10)
    deployed = made.deployable().train()
    assert not any(module.training for module in deployed.tails[0].reused.modules())


@pytest.mark.parametrize("reuse_from", [None, "layer3"])
def test_the_layers_that_were_found_make_the_same_method_again(reuse_from: str | None) -> None:
    made = method((3, 4), (4, 6, 5), reuse_from=reuse_from)
    again = method((3, 4), (4, 6, 5), reuse_from=reuse_from, taps=made.tapped)
    assert (again.cut, again.tapped) == (made.cut, made.tapped)
    assert again.tails[0].plan == made.tails[0].plan


def test_joint_keeps_a_classifier_of_the_students_features() -> None:
    made = entered(method(variant="joint", joint_weight=0.5))
    batch = images(4, dtype=torch.float64)
    losses = made(batch)
    own = made.student_taps(batch)["layer2"].mean((2, 3))
    wanted = F.cross_entropy(made.own.classifier(own), batch["targets"])
    assert losses.terms["hard"].item() == pytest.approx(wanted.item(), rel=1e-12)
    assert losses.weights == {"simkd": 1.0, "hard": 0.5}
    deployed = made.eval().deployable().eval()
    own = made.student_taps(batch)["layer2"].mean((2, 3))
    assert torch.allclose(deployed(batch["inputs"]), made.own.classifier(own))
    assert set(entered(method(variant="joint", joint_target="teacher"))(batch).terms) == {"simkd", "soft"}


def test_sequential_trains_a_classifier_on_the_projected_features() -> None:
    made = method(variant="sequential").float()
    first, second = made.stages()
    assert (first.scored, second.data) == (False, "labelled")
    before = state(made)
    made.enter(second)
    losses = made(images(4), update="classifier")
    losses.total.backward()
    assert set(losses.terms) == {"hard"}
    assert all(p.grad is None for p in made.student.parameters())
    assert made.tails[0].classifier.weight.grad is not None
    assert not changed(before, made)  # no batch statistics either
    result = fit(made, dataset(16), settings=Training(epochs=2, batch_size=8))
    assert len(result.history) == 2
    assert not torch.equal(result.method.tails[0].classifier.weight, made.teacher.model.fc.weight)


def test_several_teachers_are_summed_and_their_outputs_averaged() -> None:
    teachers = [cnn(4, 6, seed=2), cnn(3, 5, seed=4)]
    made = SimKD(cnn(3, 4, seed=1), teachers=teachers, example=images(4))
    made.enter(made.stages()[0])
    losses = made(images(4))
    assert losses.total.item() == pytest.approx(sum(term.item() for term in losses.terms.values()), rel=1e-6)
    assert set(losses.terms) == {"simkd_1", "simkd_2"}
    value = made.eval().student_taps(images(4))["layer2"]
    wanted = torch.stack([tail(value) for tail in made.tails]).mean(0)
    assert torch.allclose(made.deployable().eval()(images(4)["inputs"]), wanted, atol=1e-6)


def test_rows_of_the_classifier_follow_the_order_of_the_teachers_outputs() -> None:
    class Turned(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)[:, [2, 0, 3, 1]]

    teacher = Turned(cnn(4, 6, seed=2))
    made = SimKD(cnn(3, 4, seed=1), teacher, example=images(4))
    assert made.heads[0].order.tolist() == [2, 0, 3, 1]
    assert torch.equal(made.tails[0].classifier.weight, teacher.body.fc.weight[[2, 0, 3, 1]])


def test_a_copy_of_what_is_deployed_works_by_itself() -> None:
    deployed = method().float().deployable().eval()
    other = copy.deepcopy(deployed)
    assert isinstance(other, Composed)
    inputs = images(4)["inputs"]
    with torch.no_grad():
        for parameter in deployed.parameters():
            parameter.zero_()
        assert other(inputs).abs().sum() > 0
        assert torch.equal(other(inputs), copy.deepcopy(other)(inputs))
    assert not any(name.startswith("body.fc") for name, _ in deployed.named_parameters())


def test_a_combination_with_plain_distillation_deploys_the_composed_network() -> None:
    student, teacher = cnn(3, 4, seed=1), cnn(4, 6, seed=2)
    parts = [KD(student, teacher), SimKD(student, teacher, example=images(4))]
    made = Combination(parts)
    assert set(made(images(4)).terms) == {"kd.hard", "kd.soft", "simkd.simkd"}
    assert isinstance(made.deployable(), Composed)


def test_records_are_read_by_the_names_of_the_layers() -> None:
    made = entered(method())
    batch = images(4, dtype=torch.float64)
    student, teacher = made.student_taps(batch), made.teacher(batch)
    alone = made.losses(Record(None, student.layers), Record(None, teacher.layers), batch)
    assert alone.total.item() == pytest.approx(made(batch).total.item(), rel=1e-12)
    assert Classification().kind in made.card.tasks
    assert made.outputs == CLASSES
