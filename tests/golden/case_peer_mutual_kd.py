"""Golden cases of peer-mutual KD: losses from given outputs, traces through the method and its updates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.ensemble import combine
from limbeck.losses import kl_divergence, log_probabilities, softened_divergence
from limbeck.losses.peers import legacy_divergence
from limbeck.methods.peer_mutual_kd import TEACHER, PeerMutualKD
from limbeck.record import Losses
from limbeck.task import Classification
from tests.golden import Arrays, Case, Results, gradient


class Locations(Classification):
    """Class logits at locations: of a detection task only the kind matters here."""

    kind = "boxes"


def of_outputs(number: int, **settings: Any) -> PeerMutualKD:
    """A method whose networks never run: its losses are computed from given outputs."""
    students = [nn.Linear(1, 1 + m) for m in range(number)]
    return PeerMutualKD(students, nn.Linear(1, 1 + number), **settings)


def cohort_losses(
    method: PeerMutualKD, students: Tensor, teacher: Tensor, batch: dict[str, Any]
) -> list[Losses]:
    """The losses of every student from the logits of all."""
    outputs = {TEACHER: teacher, **{f"student{m}": each for m, each in enumerate(students)}}
    return [method.network_losses(f"student{m}", outputs, batch) for m in range(len(students))]


def terms(losses: list[Losses], name: str) -> Tensor:
    return torch.stack([each.terms[f"student{m}.{name}"] for m, each in enumerate(losses)])


def totals(losses: list[Losses]) -> Tensor:
    return torch.stack([each.total for each in losses])


def losses(file: Arrays) -> Results:
    """All terms, options and gradients; the gradient of a sum over students is that of each alone."""
    students, number = file.leaf("z_s"), len(file["z_s"])
    weights = {f"{name}_weight": file.number(f"w_{name}") for name in ("ce", "kd", "ml")}
    common = {"temperature": file.number("T"), "peer_temperature": file.number("T_peer")}

    def of(**settings: Any) -> list[Losses]:
        method = of_outputs(number, **{**weights, **common, **settings})
        return cohort_losses(method, students, file["z_t"], {"targets": file["y"]})

    full, unit = of(), of(ce_weight=1.0, kd_weight=1.0, ml_weight=1.0)
    found: dict[str, Tensor] = {
        "total": totals(full),
        "grad_total": gradient(totals(full).sum(), students),
        "total_kd_only": totals(of(ml_weight=0.0)),
        "total_ml_only": totals(of(kd_weight=0.0)),
        "ml_sum": terms(of(ml_weight=1.0, peer_reduction="sum"), "peers"),
        "ml_ensemble": terms(of(ml_weight=1.0, peer="ensemble"), "peers"),
        "ml_js": terms(of(ml_weight=1.0, peer="js"), "peers"),
    }
    for name, term in (("ce", "cross_entropy"), ("kd", "teacher"), ("ml", "peers")):
        found[name] = terms(unit, term)
    for name in ("ce", "kd", "ml", "ml_ensemble", "ml_js"):
        found[f"grad_{name}"] = gradient(found[name].sum(), students)
    return {**found, **pairs(file), **teacher_and_ensemble(file)}


def pairs(file: Arrays) -> dict[str, Tensor]:
    """Each student against each; and the gradient to avoid, that of peers which are not detached."""
    students = file.leaf("z_s")
    temperature = file.number("T_peer")

    def undetached(own: Tensor, peer: Tensor) -> Tensor:
        target, predicted = log_probabilities(peer, temperature), log_probabilities(own, temperature)
        return temperature**2 * kl_divergence(target, predicted).mean()

    wrong = file.number("w_ml") / (len(students) - 1) * pairwise(students, undetached).sum()
    for own in students:
        wrong = wrong + file.number("w_ce") * Classification().loss(own, {"targets": file["y"]})
        wrong = wrong + file.number("w_kd") * softened_divergence(own, file["z_t"], file.number("T"))
    return {
        "kl_pair": pairwise(students, lambda own, peer: softened_divergence(own, peer, temperature)),
        "kl_pair_eps": pairwise(students, legacy_divergence),
        "grad_wrong_undetached": gradient(wrong, students),
    }


def pairwise(students: Tensor, divergence: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[M, M]: the divergence of student m (row) from student j, diagonal 0."""
    zero = students.new_zeros(())
    number = range(len(students))
    rows = [[zero if m == j else divergence(students[m], students[j]) for j in number] for m in number]
    return torch.stack([torch.stack(row) for row in rows])


def teacher_and_ensemble(file: Arrays) -> dict[str, Tensor]:
    teacher, students = file.leaf("z_t"), list(file["z_s"])
    method = of_outputs(len(students))
    loss = method.network_losses(TEACHER, {TEACHER: teacher}, {"targets": file["y"]}).total
    probabilities = combine(students).exp()
    return {
        "teacher_ce": loss,
        "grad_teacher": gradient(loss, teacher),
        "ensemble_prob": probabilities,
        "ensemble_pred": combine(students).argmax(1),
        "ensemble_pred_logits": combine(students, "logits").argmax(1),
        "student_pred": torch.stack([each.argmax(1) for each in students]),
    }


def dense(file: Arrays) -> Results:
    """Softmax and sigmoid heads at locations, one mask for all terms."""
    found: dict[str, Tensor] = {}
    students, teacher, mask = file.leaf("z_s"), file["z_t"], file["weight"]
    task = Locations()
    for activation in ("softmax", "sigmoid"):
        method = of_outputs(
            len(students),
            task=task,
            ce_weight=0.0,
            temperature=file.number("T"),
            activation=activation,
            locations="given",
        )
        parts = cohort_losses(method, students, teacher, {"mask": mask})
        found[f"{activation}_kd"], found[f"{activation}_ml"] = terms(parts, "teacher"), terms(parts, "peers")
        found[f"{activation}_grad"] = gradient(totals(parts).sum(), students)
        found[f"{activation}_kd_map"] = torch.stack([_map(method, own, teacher) for own in students])
    return found


def _map(method: PeerMutualKD, own: Tensor, teacher: Tensor) -> Tensor:
    """The teacher term of each location: the masked mean where the mask holds that location alone."""
    images, locations = own.shape[:2]
    values = own.new_zeros(images, locations)
    for image in range(images):
        for place in range(locations):
            one = torch.zeros_like(values)
            one[image, place] = 1
            values[image, place] = method.agreement.divergence(
                own, teacher, method.temperature, {"mask": one}
            )
    return values


class Net(nn.Module):
    """z = W2 tanh(W1 x), no biases."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs @ self.first.T).tanh() @ self.second.T


ORDERS = {
    "seq": {"order": "sequential"},
    "sim": {"order": "simultaneous"},
    "own": {"order": "own_batch"},
    "frozen": {"order": "simultaneous", "teacher_mode": "frozen"},
}


def trace(file: Arrays) -> Results:
    """Two epochs in every order, through the stages and updates that the method names."""
    found: dict[str, Tensor] = {}
    for tag, settings in ORDERS.items():
        students = sorted(name.removesuffix("_W1_init") for name in file.names("student*_W1_init"))
        nets = {name: Net(file[f"{name}_W1_init"], file[f"{name}_W2_init"]) for name in (TEACHER, *students)}
        method = PeerMutualKD(
            [nets[name] for name in students],
            nets[TEACHER],
            temperature=file.number("T"),
            peer_temperature=file.number("T_peer"),
            **{f"{name}_weight": file.number(f"w_{name}") for name in ("ce", "kd", "ml")},
            **settings,
        )
        found[f"{tag}_log"] = torch.stack(list(steps(method, file)))
        for name, net in nets.items():
            found[f"{tag}_{name}_W1"], found[f"{tag}_{name}_W2"] = net.first, net.second
        found[f"{tag}_ensemble_prob"] = method.networks()["ensemble"](file["x"]).exp()
    return found


def steps(method: PeerMutualKD, file: Arrays) -> Iterator[Tensor]:
    """Trains, and gives (ce, kd, ml, total) of the teacher and every student before its update, [M+1, 4]."""
    rates = {TEACHER: file.number("lr_teacher")}
    size = file.integer("batch_size")
    batches = list(zip(file["x"].split(size), file["y"].split(size), strict=True))
    (stage,) = method.stages()
    method.enter(stage)
    optimizers = {
        update.name: torch.optim.SGD(
            [
                {"params": list(update.group(name)), "lr": rates.get(name, file.number("lr_student"))}
                for name in update.trains
            ]
        )
        for update in stage.updates
    }
    drawn = cycle(batches)
    for _ in range(file.integer("epochs") * len(batches)):
        batch = next(drawn)
        rows: dict[str, Tensor] = {}
        for number, update in enumerate(stage.updates):
            if stage.own_batches and number:
                batch = next(drawn)
            losses = method(batch, update.name)
            losses.total.backward()
            optimizers[update.name].step()
            optimizers[update.name].zero_grad()
            rows.update(_rows(losses))
        rows.setdefault(TEACHER, _frozen_row(method, batch))
        yield torch.stack([rows[name] for name in sorted(rows, key=lambda name: (name != TEACHER, name))])


def _rows(losses: Losses) -> dict[str, Tensor]:
    rows = {}
    for name in dict.fromkeys(term.partition(".")[0] for term in losses.terms):
        keys = [f"{name}.{term}" for term in ("cross_entropy", "teacher", "peers")]
        values = [losses.terms.get(key, torch.zeros_like(losses.total)) for key in keys]
        total = sum(losses.weights[key] * losses.terms[key] for key in keys if key in losses.terms)
        rows[name] = torch.stack([*values, torch.as_tensor(total)]).detach()
    return rows


def _frozen_row(method: PeerMutualKD, batch: Any) -> Tensor:
    """The cross-entropy of a frozen teacher, which the method itself does not compute."""
    if method.teacher is None:
        return torch.zeros(4)
    normal = method.task.batch(batch)
    loss = method.task.loss(method.teacher(normal).output, normal)
    return torch.stack([loss, torch.zeros_like(loss), torch.zeros_like(loss), loss])


CASES = (
    Case("losses", needs=("z_t", "z_s", "y", "kl_pair"), results=losses, tolerance=1e-10),
    Case("dense", needs=("z_t", "z_s", "weight", "softmax_kd_map"), results=dense, tolerance=1e-10),
    Case("trace", needs=("teacher_W1_init", "x", "seq_log"), results=trace, tolerance=1e-10),
)
