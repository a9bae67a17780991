"""Peer-mutual KD: one teacher and several students trained together (Niyaz and Bathula 2021)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from limbeck.ensemble import Combining, Ensemble, disagreement
from limbeck.errors import RequestError, nearest
from limbeck.losses import check_temperature
from limbeck.losses.soft import Activation
from limbeck.method import Card, Method, Stage, Update
from limbeck.methods._agreement import (
    Agreement,
    Locations,
    Peer,
    PeerReduction,
    check_choice,
    check_outputs,
    logits_of,
)
from limbeck.record import Losses
from limbeck.statistics import keep_statistics
from limbeck.taps import untapped
from limbeck.task import Task
from limbeck.teacher import Teacher

Order = Literal["sequential", "simultaneous", "own_batch"]
TeacherMode = Literal["online", "frozen"]

#: The one update of the order `simultaneous`.
COHORT = "cohort"
TEACHER = "teacher"


@final
class PeerMutualKD(Method):
    """A teacher and M students trained at the same time; each student learns from labels, teacher and peers.

    Niyaz and Bathula 2021, which says that much; form and weights of the terms are ours. The peer term is
    deep mutual learning (Zhang et al. 2018), which is what remains with `kd_weight` 0, `ml_weight` 1 and no
    teacher. `ml_weight` 0 is online distillation of independent students, both 0 independent students.

    Order of the updates within a step:

    - `sequential`: the teacher, then each student. Targets are computed anew on the same batch, so those
      of networks that have stepped are fresh. M^2 further forwards without gradient.
    - `simultaneous`: every network answers once, all losses come from these answers, then all step. The
      networks are the groups of one update: their parameters are disjoint and optimizers work parameter
      by parameter, so one optimizer with a group a network is the same as one each (a test compares them
      bit for bit). Only clipping sees the difference: it takes the norm over all of them.
    - `own_batch`: as sequential, but each update draws its own next batch.

    Each loss reaches only the parameters of its own network. A network that gives targets stays in train
    mode (statistics of the batch) and its running statistics stay untouched.

    Unlabelled samples have the label -1: cross-entropy is over the labelled ones, divergences over all.
    Terms with weight 0 are left out, with the forwards that only they need.

    Args:
        students: the cohort, each with random weights of its own; any architectures, the same classes.
        teacher: an untrained network that is trained along by the labels (`online`), or a trained one,
            also as a `Teacher` (`frozen`). Optional with `kd_weight` 0.
        task: `Classification`, or a task of the kind "boxes" whose outputs are class logits [B, N, K], or
            a mapping of `logits` and decoded `boxes` [B, N, 4].
        teacher_mode: `online` or `frozen`.
        order: of the updates, see above.
        ce_weight, kd_weight, ml_weight: weights >= 0 of labels, teacher and peers; not all 0.
        temperature: T of the teacher term; T^2 stands inside the term.
        peer_temperature: T of the peer term; deep mutual learning has none (1).
        peer: `pairs` KL(s_j || s_m); `ensemble` KL(mean of the peers || s_m), found worse; `js`
            Jensen-Shannon of each pair.
        peer_reduction: `mean` over pairs (text of deep mutual learning) or `sum` (its code).
        teacher_learns: the online teacher gets `ml_weight` * mean_m KL(s_m || t) too.
        kd_warmup: `kd_weight` grows over this many epochs, as min(1, epochs done / kd_warmup); 0: no ramp.
        combining: how the ensemble of the students predicts, see `Ensemble`.
        deploy: what is kept: `best` the student with the best validation score, `ensemble` all of
            them, or the number of a student, from 0.
        activation: boxes only: `softmax` one class a location, `sigmoid` independent classes.
        locations: boxes only: where terms count. `foreground`: those of `batch["mask"]` [B, N] (assigned to
            an object) and those where the target network's best foreground score exceeds 0.5; `given`: the
            weights in `batch["mask"]` alone; `all`.
        background: boxes only: which class of a softmax head is the background, -1 for the last.
        box: boxes only: also smooth L1 to the boxes of teacher and peers, at the same locations.
        box_weight: its weight.
        legacy_eps: for checks only: the KL of the official code of deep mutual learning, sum
            q log(eps + q / (p + eps)) at T = 1, whose gradient dies under confident disagreement.
    """

    card = Card(
        slug="peer_mutual_kd",
        title="Peer-mutual KD",
        paper="Niyaz, Bathula. Augmenting Knowledge Distillation With Peer-To-Peer Mutual Learning For Model "
        "Compression. 2021, arXiv 2110.11023. Peer term: Zhang, Xiang, Hospedales, Lu. Deep Mutual Learning. "
        "CVPR 2018, arXiv 1706.00384",
        equations=(
            "L_m = w_ce CE(z_m, y) + w_kd T^2 KL(t || s_m) + w_ml mean_{j != m} KL(s_j || s_m)",
            "L_t = CE(z_t, y)",
        ),
        tasks=("classes", "boxes"),
        needs=("labels", "several students"),
        teacher="trained",
        deployed="the student with the best validation score, or the ensemble of all",
        hyperparameters={
            "order": "sequential, simultaneous or own_batch; the paper does not say",
            "ce_weight": "weight of the labels, >= 0; 1 in deep mutual learning",
            "kd_weight": "weight of the teacher term, >= 0; not known",
            "ml_weight": "weight of the peer term, >= 0; 1 in deep mutual learning",
            "temperature": "T of the teacher term, > 0; not known",
            "peer_temperature": "T of the peer term, > 0; 1 in deep mutual learning",
            "peer": "pairs, ensemble or js; pairs in deep mutual learning",
            "peer_reduction": "mean (text of deep mutual learning) or sum (its code)",
            "teacher_mode": "online as in the paper, or frozen",
            "teacher_learns": "the teacher learns from the students too; no (inferred)",
            "kd_warmup": "epochs over which kd_weight grows, >= 0; 0",
            "combining": "probabilities, logits or vote; not known",
            "deploy": "best, ensemble or the number of a student",
            "activation": "detection: softmax or sigmoid heads",
            "locations": "detection: foreground, given or all",
            "background": "detection: the background's class in a softmax head; 0",
            "box": "detection: also a term on boxes; no",
            "box_weight": "detection: its weight, >= 0; 1",
            "legacy_eps": "for checks against the code of deep mutual learning (1e-8); 0",
        },
        cohort=True,
        minimum={f"student{m}.{term}": 0.0 for m in (0, 1) for term in ("teacher", "peers")},
        consulted="YingZhangDUT/Deep-Mutual-Learning (the authors' code of deep mutual learning); "
        "chxy95/Deep-Mutual-Learning",
        inferred=(
            "the three terms of a student and their weights",
            "the teacher learns from labels alone, is updated first and stays in train mode for its targets",
            "the ensemble is the mean of the probabilities at T = 1",
            "all that concerns detection",
        ),
    )

    def __init__(
        self,
        students: Sequence[nn.Module],
        teacher: nn.Module | Teacher | None = None,
        *,
        task: Task | None = None,
        teacher_mode: TeacherMode = "online",
        order: Order = "sequential",
        ce_weight: float = 1.0,
        kd_weight: float = 1.0,
        ml_weight: float = 1.0,
        temperature: float = 3.0,
        peer_temperature: float = 1.0,
        peer: Peer = "pairs",
        peer_reduction: PeerReduction = "mean",
        teacher_learns: bool = False,
        kd_warmup: int = 0,
        combining: Combining = "probabilities",
        deploy: Literal["best", "ensemble"] | int = "best",
        activation: Activation = "softmax",
        locations: Locations = "foreground",
        background: int = 0,
        box: bool = False,
        box_weight: float = 1.0,
        legacy_eps: float = 0.0,
    ) -> None:
        check_choice("teacher_mode", teacher_mode, get_args(TeacherMode))
        check_choice("order", order, get_args(Order))
        online = teacher_mode == "online"
        if online and isinstance(teacher, Teacher):
            raise RequestError(
                "a Teacher is frozen, and teacher_mode is online",
                fix='teacher_mode="frozen", or give the untrained network itself',
            )
        super().__init__(None, None if online else teacher, task=task)
        self.students = nn.ModuleList(students)
        self.trained_teacher = teacher if online and isinstance(teacher, nn.Module) else None
        self.teacher_mode, self.order = teacher_mode, order
        self.ce_weight, self.kd_weight, self.ml_weight = ce_weight, kd_weight, ml_weight
        self.temperature, self.peer_temperature = temperature, peer_temperature
        self.peer, self.peer_reduction, self.teacher_learns = peer, peer_reduction, teacher_learns
        self.kd_warmup, self.combining, self.deploy = kd_warmup, combining, deploy
        self.activation, self.locations, self.background = activation, locations, background
        self.box, self.box_weight, self.legacy_eps = box, box_weight, legacy_eps
        self.agreement = Agreement(
            self.task.kind == "boxes",
            peer_temperature,
            peer,
            peer_reduction,
            activation,
            locations,
            background,
            legacy_eps,
        )
        self._check_numbers()
        self._check_deployed()
        self._check_cohort()

    def _check_numbers(self) -> None:
        check_temperature(self.temperature)
        for name in ("ce_weight", "kd_weight", "ml_weight", "box_weight", "kd_warmup"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} = {getattr(self, name)}; needed a number >= 0")
        if self.ce_weight == self.kd_weight == self.ml_weight == 0:
            raise RequestError(
                "ce_weight, kd_weight and ml_weight are all 0: the students learn nothing",
                fix="ce_weight = 1.0",
            )

    def _check_deployed(self) -> None:
        check_choice("combining", self.combining, get_args(Combining))
        check_choice("deploy", self.deploy, ("best", "ensemble", *range(len(self.students))))
        if self.box and not self.agreement.dense:
            raise RequestError(f"box is for detectors; the task {self.task.name} has {self.task.kind}")
        if self.agreement.dense and self.deploy == "ensemble":
            raise RequestError(
                "the pooled boxes of several detectors are not a network", fix='deploy = "best"'
            )

    def _check_cohort(self) -> None:
        number = len(self.students)
        if number == 0 or (number < 2 and self.ml_weight > 0):
            raise RequestError(
                f"a cohort of {number}; needed at least 2 students to learn from each other",
                fix="give more students, or ml_weight = 0",
            )
        if self.kd_weight > 0 and self.trained_teacher is None and self.teacher is None:
            raise RequestError(
                f"kd_weight {self.kd_weight} without a teacher", fix="give one, or kd_weight = 0"
            )
        if self.teacher_learns and (self.trained_teacher is None or self.ml_weight == 0):
            raise RequestError("teacher_learns needs an online teacher and ml_weight above 0")
        networks = self._cohort()
        if self.teacher is not None:
            networks[TEACHER] = self.teacher.model
        for (name, one), (other, two) in combinations(networks.items(), 2):
            shared = {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}
            if one is two or shared:
                what = "are the same module" if one is two else "share parameters"
                raise RequestError(f"{name} and {other} {what}; each needs weights of its own")
            if TEACHER not in (name, other) and _same_weights(one, two):
                warnings.warn(
                    f"{name} and {other} start with identical weights, so they teach each other nothing; "
                    "make them with different seeds",
                    stacklevel=3,
                )

    def _cohort(self) -> dict[str, nn.Module]:
        """The networks that train, by name, in the order of their updates."""
        teacher = {} if self.trained_teacher is None else {TEACHER: self.trained_teacher}
        return {**teacher, **{f"student{m}": student for m, student in enumerate(self.students)}}

    def stages(self) -> Iterable[Stage]:
        """One stage; an update a network, or one with a group a network (`simultaneous`)."""
        cohort = self._cohort()
        if self.order == "simultaneous":
            return [Stage("train", [Update(COHORT, cohort)])]
        updates = [Update(name, {name: network}) for name, network in cohort.items()]
        return [Stage("train", updates, own_batches=self.order == "own_batch")]

    def forward(self, batch: Any, update: str = COHORT) -> Losses:
        """The losses of one update; runs the networks that it trains and those that give it targets.

        Args:
            batch: a mapping with `inputs` and `targets`.
            update: `cohort` (simultaneous); `teacher`, `student0`, `student1`, ... in the other orders.
        """
        batch = self.task.batch(batch)
        learners = self._learners(update)
        outputs: dict[str, Any] = {}
        for name, network in self._cohort().items():
            if name in learners:
                outputs[name] = self.task.call(network, batch)
            elif self._gives_targets(name, learners):
                with torch.no_grad(), keep_statistics(network):
                    outputs[name] = self.task.call(network, batch)
        if self.teacher is not None and self._gives_targets(TEACHER, learners):
            outputs[TEACHER] = self.teacher(batch).output
        if len(learners) == 1:
            return self.network_losses(learners[0], outputs, batch)
        parts = [self.network_losses(name, outputs, batch) for name in learners]
        return Losses(
            {name: term for part in parts for name, term in part.terms.items()},
            {name: weight for part in parts for name, weight in part.weights.items()},
            {name: note for part in parts for name, note in part.notes.items()},
        )

    def _learners(self, update: str) -> list[str]:
        """The networks that an update trains."""
        cohort = list(self._cohort())
        known = [COHORT] if self.order == "simultaneous" else cohort
        if update not in known:
            raise RequestError(
                f"there is no update {update!r} in the order {self.order}; it has {', '.join(known)}",
                near=nearest(update, known),
                fix='order="simultaneous" steps all networks with one loss' if update == COHORT else None,
            )
        return cohort if update == COHORT else [update]

    def _gives_targets(self, name: str, learners: Sequence[str]) -> bool:
        """Whether any other learner has a term that reads a network's output."""
        others = [learner for learner in learners if learner != name]
        if name == TEACHER:
            return bool(others) and self.kd_weight > 0
        return self.ml_weight > 0 and any(n != TEACHER or self.teacher_learns for n in others)

    def network_losses(self, name: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Losses:
        """The loss of one network from the outputs of all that it reads.

        Args:
            name: `teacher` or `student<m>`.
            outputs: by network: what the task reads, logits [B, K]; all but its own are detached.
            batch: in normal form.

        Returns:
            Terms `<name>.cross_entropy`, `<name>.teacher`, `<name>.peers`, those with a weight.
        """
        check_outputs(name, outputs)
        if name == TEACHER:
            return self._teacher_losses(outputs, batch)
        own = outputs[name]
        peers = [output for key, output in outputs.items() if key not in (name, TEACHER)]
        terms: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        notes: dict[str, Tensor] = {}
        if self.ce_weight:
            terms["cross_entropy"], weights["cross_entropy"] = self.task.loss(own, batch), self.ce_weight
        if self.kd_weight:
            terms["teacher"] = self.agreement.divergence(own, outputs[TEACHER], self.temperature, batch)
            weights["teacher"] = self.kd_weight * self._ramp()
        if self.ml_weight:
            terms["peers"], weights["peers"] = self.agreement.peers(own, peers, batch), self.ml_weight
            notes["disagreement"] = disagreement([logits_of(output) for output in (own, *peers)])
        if self.box and self.kd_weight:
            terms["teacher_boxes"] = self.agreement.boxes(own, outputs[TEACHER], batch)
            weights["teacher_boxes"] = self.box_weight
        if self.box and self.ml_weight:
            each = [self.agreement.boxes(own, peer, batch) for peer in peers]
            terms["peer_boxes"], weights["peer_boxes"] = torch.stack(each).mean(), self.box_weight
        return Losses(
            {f"{name}.{key}": term for key, term in terms.items()},
            {f"{name}.{key}": weight for key, weight in weights.items()},
            {f"{name}.{key}": note for key, note in notes.items()},
        )

    def _ramp(self) -> float:
        """The share of `kd_weight` that is in force: an untrained teacher gives noise."""
        return min(1.0, (self.epoch - 1) / self.kd_warmup) if self.kd_warmup else 1.0

    def _teacher_losses(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Losses:
        terms = {"teacher.cross_entropy": self.task.loss(outputs[TEACHER], batch)}
        weights = {"teacher.cross_entropy": 1.0}
        if self.teacher_learns:
            students = [output for key, output in outputs.items() if key != TEACHER]
            each = [self.agreement.divergence(outputs[TEACHER], other, 1.0, batch) for other in students]
            terms["teacher.peers"], weights["teacher.peers"] = torch.stack(each).mean(), self.ml_weight
        return Losses(terms, weights)

    def networks(self) -> dict[str, nn.Module]:
        """Every student, their ensemble (not of detectors) and the online teacher.

        The first chooses the checkpoint: what is deployed, or the ensemble where that is the best student.
        """
        scored: dict[str, nn.Module] = {f"student{m}": student for m, student in enumerate(self.students)}
        if self.task.kind != "boxes" and len(self.students) > 1:
            scored["ensemble"] = self._ensemble(self.students)
        if self.trained_teacher is not None:
            scored[TEACHER] = self.trained_teacher
        first = f"student{self.deploy}" if isinstance(self.deploy, int) else "ensemble"
        return dict(sorted(scored.items(), key=lambda item: item[0] != first))

    def learners(self) -> list[nn.Module]:
        """The cohort, and a teacher that trains with it."""
        return list(self._cohort().values())

    def deployable(self) -> nn.Module:
        """A copy of the student that `deploy` names, or of all as an `Ensemble`; never the teacher."""
        if self.deploy == "ensemble":
            return self._ensemble([untapped(student) for student in self.students])
        return untapped(self.students[self.deploy if isinstance(self.deploy, int) else self.best_student()])

    def best_student(self) -> int:
        """The number of the student with the best validation score; 0 before any score is known."""
        scores: Mapping[str, Mapping[str, float]] = self.__dict__["_loop"].get("scores", {})
        known = [m for m in range(len(self.students)) if f"student{m}" in scores]
        return max(known, key=lambda m: scores[f"student{m}"][self.task.score_name], default=0)

    def _ensemble(self, students: Iterable[nn.Module]) -> Ensemble:
        return Ensemble(list(students), task=self.task, combining=self.combining)


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = dict(one.named_parameters()), dict(other.named_parameters())
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape and torch.equal(first[name], second[name]) for name in first
    )
