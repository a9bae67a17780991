"""What peer-mutual KD refuses, what it deploys, and its dense form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from limbeck.ensemble import Ensemble
from limbeck.errors import RequestError
from limbeck.losses import bernoulli_divergence, softened_divergence
from limbeck.methods.peer_mutual_kd import PeerMutualKD
from limbeck.task import Classification, Regression
from limbeck.teacher import Teacher
from tests.methods.cohort import batch, net, same, weights


def pair():
    return [net(2), net(3, 5)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"students": []}, "a cohort of 0; needed at least 2 students"),
        ({"students": [net(2)]}, "a cohort of 1; needed at least 2 students"),
        ({"teacher": None}, "kd_weight 1.0 without a teacher"),
        ({"teacher": None, "teacher_mode": "frozen"}, "kd_weight 1.0 without a teacher"),
        ({"teacher": Teacher(net(1))}, "a Teacher is frozen, and teacher_mode is online"),
        ({"ce_weight": 0, "kd_weight": 0, "ml_weight": 0}, "are all 0"),
        ({"ce_weight": -1.0}, "ce_weight = -1.0"),
        ({"kd_weight": -0.1}, "kd_weight = -0.1"),
        ({"ml_weight": float("nan")}, "ml_weight = nan"),
        ({"kd_warmup": -2}, "kd_warmup = -2"),
        ({"temperature": 0.0}, "temperature 0.0; needed a number above 0"),
        ({"peer_temperature": -1.0}, "temperature -1.0; needed a number above 0"),
        ({"teacher_learns": True, "teacher_mode": "frozen"}, "teacher_learns needs an online teacher"),
        ({"teacher_learns": True, "ml_weight": 0.0}, "ml_weight above 0"),
        ({"order": "parallel"}, "order = 'parallel'; needed sequential, simultaneous, own_batch"),
        ({"teacher_mode": "offline"}, "teacher_mode = 'offline'; needed online, frozen"),
        ({"peer": "kl"}, "peer = 'kl'; needed pairs, ensemble, js"),
        ({"peer_reduction": "max"}, "peer_reduction = 'max'; needed mean, sum"),
        ({"combining": "mean"}, "combining = 'mean'; needed probabilities, logits, vote"),
        ({"deploy": 2}, "deploy = 2; needed best, ensemble, 0, 1"),
        ({"deploy": "teacher"}, "deploy = 'teacher'"),
        ({"box": True}, "box is for detectors; the task classification has classes"),
        ({"legacy_eps": 1e-8, "peer": "js"}, "peer = pairs and peer_temperature = 1"),
        ({"task": Regression()}, "classes or boxes; the task regression has values"),
    ],
)
def test_wrong_requests_are_refused(settings, message):
    given = {"students": pair(), "teacher": net(1), **settings}
    with pytest.raises(RequestError) as caught:
        PeerMutualKD(given.pop("students"), given.pop("teacher"), **given)
    assert message in str(caught.value)


def test_the_same_network_twice_is_refused():
    one, other = pair()
    with pytest.raises(RequestError, match="student0 and student2 are the same module"):
        PeerMutualKD([one, other, one], net(1))
    with pytest.raises(RequestError, match="teacher and student1 are the same module"):
        PeerMutualKD([one, other], other)
    with pytest.raises(RequestError, match="student1 and teacher are the same module"):
        PeerMutualKD([one, other], other, teacher_mode="frozen")
    shared = nn.Sequential(one[0], nn.Linear(6, 4).double())
    with pytest.raises(RequestError, match="student0 and student1 share parameters"):
        PeerMutualKD([one, shared], net(1))


def test_identical_weights_are_warned_of():
    with pytest.warns(UserWarning, match="student0 and student2 start with identical weights"):
        PeerMutualKD([net(2), net(3), net(2)], net(1))


@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_other_classes_are_refused_with_both_networks_named(order):
    update = "cohort" if order == "simultaneous" else "student0"
    students = [net(2), net(3, classes=3)]
    method = PeerMutualKD(students, kd_weight=0.0, order=order)
    with pytest.raises(RequestError, match="student0 has classes 4 and student1 3"):
        method(batch(), update)
    method = PeerMutualKD([net(2), net(3)], net(1, classes=7), teacher_mode="frozen", order=order)
    with pytest.raises(RequestError, match="student0 has classes 4 and teacher 7"):
        method(batch(), update)


def test_updates_of_another_order_are_refused():
    with pytest.raises(
        RequestError, match=r"no update 'cohort' in the order sequential.*teacher, student0, student1"
    ) as e:
        PeerMutualKD(pair(), net(1))(batch())
    assert 'order="simultaneous"' in str(e.value)
    with pytest.raises(RequestError, match="near: student1, student0"):
        PeerMutualKD(pair(), net(1))(batch(), "student11")
    with pytest.raises(RequestError, match="no update 'student0' in the order simultaneous; it has cohort"):
        PeerMutualKD(pair(), net(1), order="simultaneous")(batch(), "student0")


def test_one_student_without_peers_is_online_distillation():
    method = PeerMutualKD([net(2)], net(1), ml_weight=0.0, order="simultaneous")
    assert set(method(batch()).terms) == {
        "teacher.cross_entropy",
        "student0.cross_entropy",
        "student0.teacher",
    }
    assert list(method.networks()) == ["student0", "teacher"]
    alone = PeerMutualKD([net(2)], ml_weight=0.0, kd_weight=0.0, order="simultaneous")
    assert set(alone(batch()).terms) == {"student0.cross_entropy"}


# -- what is scored and deployed ---------------------------------------------------------------------


def test_networks_and_which_of_them_chooses_the_checkpoint():
    every = {"student0", "student1", "ensemble", "teacher"}
    for deploy, first in (("best", "ensemble"), ("ensemble", "ensemble"), (1, "student1")):
        networks = PeerMutualKD(pair(), net(1), deploy=deploy).networks()
        assert set(networks) == every
        assert next(iter(networks)) == first
    assert set(PeerMutualKD(pair(), net(1), teacher_mode="frozen").networks()) == every - {"teacher"}


def test_the_best_student_on_validation_data_is_deployed():
    method = PeerMutualKD(pair(), net(1))
    assert method.best_student() == 0
    method.scores = {
        "ensemble": {"accuracy": 0.9},
        "student0": {"accuracy": 0.5},
        "student1": {"accuracy": 0.6},
    }
    assert method.best_student() == 1
    deployed = method.deployable()
    assert same(weights(deployed), weights(method.students[1]))
    assert not {id(p) for p in deployed.parameters()} & {id(p) for p in method.parameters()}
    assert same(weights(PeerMutualKD(pair(), net(1), deploy=0).deployable()), weights(pair()[0]))


@pytest.mark.parametrize("combining", ["probabilities", "logits", "vote"])
def test_all_students_are_deployed_as_an_ensemble(combining):
    method = PeerMutualKD(pair(), net(1), deploy="ensemble", combining=combining).eval()
    deployed, inputs = method.deployable(), batch()["inputs"]
    assert isinstance(deployed, Ensemble)
    assert torch.equal(deployed(inputs), method.networks()["ensemble"](inputs))
    assert sum(p.numel() for p in deployed.parameters()) == sum(
        p.numel() for p in method.students.parameters()
    )
    assert "students" not in [name for name, _ in method.named_modules() if "ensemble" in name]


def test_the_card_names_every_setting():
    import inspect

    settings = set(inspect.signature(PeerMutualKD).parameters) - {"students", "teacher", "task"}
    assert set(PeerMutualKD.card.hyperparameters) == settings


# -- dense -------------------------------------------------------------------------------------------

IMAGES, PLACES = 2, 7


class Dense(Classification):
    """Class logits and boxes at locations, with the class of each location as target."""

    kind = "boxes"

    def read(self, output):
        return output

    def loss(self, output, batch):
        return nn.functional.cross_entropy(output["logits"].flatten(0, 1), batch["targets"].flatten())


class Detector(nn.Module):
    """A linear head of class logits and boxes on features [B, N, 3]."""

    def __init__(self, seed, classes=3):
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.box = nn.Linear(3, classes).double(), nn.Linear(3, 4).double()

    def forward(self, inputs):
        foreground = inputs.new_tensor([1.0, 3.0, 3.0])  # rarer than the background
        return {"logits": 4 * self.head(inputs) - foreground, "boxes": 3 * self.box(inputs)}


def scenes(mask=None):
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(IMAGES, PLACES, 3, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 3, (IMAGES, PLACES), generator=generator)
    return {"inputs": inputs, "targets": targets} | ({} if mask is None else {"mask": mask})


def detectors(**settings):
    return PeerMutualKD(
        [Detector(1), Detector(2)], Detector(3), task=Dense(), order="simultaneous", **settings
    )


def masked_mean(values, mask):
    return (values * mask).sum() / mask.sum()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("locations", ["foreground", "given", "all"])
def test_dense_terms_count_where_they_should(activation, locations):
    mask = torch.zeros(IMAGES, PLACES)
    mask[0, 2] = mask[1, 5] = 1
    given = scenes(mask)
    losses = detectors(activation=activation, locations=locations)(given)
    outputs = {m: Detector(m)(given["inputs"])["logits"].detach() for m in (1, 2, 3)}
    divergence = softened_divergence if activation == "softmax" else bernoulli_divergence
    for term, target, hot in (("teacher", 3, 3.0), ("peers", 2, 1.0)):
        scores = (
            outputs[target].softmax(-1)[..., 1:] if activation == "softmax" else outputs[target].sigmoid()
        )
        seen = (scores.amax(-1) > 0.5) | mask.bool()
        counted = {"foreground": seen, "given": mask, "all": torch.ones_like(mask)}[locations].double()
        assert locations != "foreground" or mask.sum() < counted.sum() < counted.numel()
        expected = masked_mean(divergence(outputs[1], outputs[target], hot, "none"), counted)
        torch.testing.assert_close(losses.terms[f"student0.{term}"].detach(), expected)


def test_the_background_of_a_softmax_head_is_the_class_that_was_named():
    given = scenes(torch.zeros(IMAGES, PLACES))
    losses = detectors(background=-1)(given)
    own, target = (Detector(m)(given["inputs"])["logits"].detach() for m in (1, 3))
    seen = (target.softmax(-1)[..., :-1].amax(-1) > 0.5).double()
    assert not torch.equal(seen, (target.softmax(-1)[..., 1:].amax(-1) > 0.5).double())
    expected = masked_mean(softened_divergence(own, target, 3.0, "none"), seen)
    torch.testing.assert_close(losses.terms["student0.teacher"].detach(), expected)


def test_boxes_of_several_peers_are_averaged():
    students = [Detector(1), Detector(2), Detector(4)]
    method = PeerMutualKD(
        students, Detector(3), task=Dense(), order="simultaneous", locations="all", box=True
    )
    given = scenes()
    own, *peers = (Detector(m)(given["inputs"])["boxes"].detach() for m in (1, 2, 4))
    each = [nn.functional.smooth_l1_loss(own, peer) * 4 for peer in peers]
    found = method(given).terms["student0.peer_boxes"]
    torch.testing.assert_close(found.detach(), torch.stack(each).mean())


def test_dense_terms_are_zero_where_nothing_counts():
    losses = detectors(locations="given", ce_weight=0.0)(scenes(torch.zeros(IMAGES, PLACES)))
    students = {name: term for name, term in losses.terms.items() if name.startswith("student")}
    assert len(students) == 4
    assert all(term.item() == 0 for term in students.values())
    losses.total.backward()


def test_boxes_of_teacher_and_peers():
    given = scenes(torch.ones(IMAGES, PLACES))
    losses = detectors(box=True, box_weight=0.5)(given)
    own, peer, teacher = (Detector(m)(given["inputs"])["boxes"].detach() for m in (1, 2, 3))
    for term, target in (("teacher_boxes", teacher), ("peer_boxes", peer)):
        distance = (own - target).abs()
        expected = torch.where(distance < 1, distance.square() / 2, distance - 0.5).sum(-1).mean()
        torch.testing.assert_close(losses.terms[f"student0.{term}"].detach(), expected)
        assert losses.weights[f"student0.{term}"] == 0.5
    assert "teacher_boxes" not in str(detectors()(given).terms)


def test_boxes_count_where_the_classes_of_the_same_target_do():
    given = scenes(torch.zeros(IMAGES, PLACES))
    losses = detectors(box=True)(given)
    outputs = {m: Detector(m)(given["inputs"]) for m in (1, 2, 3)}
    seen = {m: (o["logits"].softmax(-1)[..., 1:].amax(-1) > 0.5).double() for m, o in outputs.items()}
    assert not any(torch.equal(seen[1], seen[m]) for m in (2, 3))
    for term, target in (("teacher_boxes", 3), ("peer_boxes", 2)):
        boxes = outputs[1]["boxes"], outputs[target]["boxes"]
        each = nn.functional.smooth_l1_loss(*boxes, reduction="none").sum(-1)
        torch.testing.assert_close(losses.terms[f"student0.{term}"], masked_mean(each, seen[target]))


def test_dense_requests_that_cannot_be_met():
    with pytest.raises(RequestError, match=r"mask.*missing"):
        detectors()(scenes())
    for locations, shape in (("foreground", (2, 6)), ("given", (2, 6)), ("given", (7,)), ("given", (2, 1))):
        with pytest.raises(RequestError, match=r"a mask \(.*needed \(2, 7\)"):
            detectors(locations=locations)(scenes(torch.ones(shape)))
    with pytest.raises(RequestError, match="compares softmax outputs"):
        detectors(activation="sigmoid", peer="ensemble")
    with pytest.raises(RequestError, match="not a network"):
        detectors(deploy="ensemble")
    assert "ensemble" not in detectors().networks()
    method = detectors()
    outputs = {f"student{m}": Detector(m)(scenes()["inputs"][:, m:]) for m in (0, 1)}
    with pytest.raises(RequestError, match="student0 has locations 7 and student1 6"):
        method.network_losses("student0", outputs, scenes())
    logits = {name: output["logits"] for name, output in {"student0": outputs["student0"]}.items()}
    with pytest.raises(RequestError, match="decoded boxes"):
        method.agreement.boxes(logits["student0"], logits["student0"], scenes())


def test_dense_mixtures_and_symmetric_terms_are_finite_and_zero_at_equality():
    for peer in ("ensemble", "js"):
        method = detectors(peer=peer, locations="all")
        assert math.isfinite(method(scenes()).total.item())
        own = Detector(1)(scenes()["inputs"])
        assert method.agreement.peers(own, [own, own], scenes()).item() == pytest.approx(0, abs=1e-12)
