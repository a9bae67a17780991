"""UniKD: features of all stages fused, turned into a distribution, and compared as outputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses import (
    check_labels,
    decoupled_terms,
    feature_error,
    gaussian_divergence,
    mutual_divergence,
)
from limbeck.method import Card, Method
from limbeck.methods._depths import find
from limbeck.methods._rows import check_labelled, reduce_rows, rows_of, soft_term
from limbeck.methods._spectral import taps_of
from limbeck.methods._unified import Gaussian, resized
from limbeck.methods._unified_heads import Heads, Noise, Plan, Said, TeacherFeature
from limbeck.methods._unified_settings import Constraint, Logits, Settings
from limbeck.record import Losses, Record
from limbeck.task import Classification, Task, denominator
from limbeck.teacher import Teacher


@final
class UniKD(Method):
    """UniKD (Huang et al. 2024): one kind of constraint, between distributions, on features and outputs.

    AFF fuses the stages of a network to one map, FDP predicts from its average over space the mean m and the
    log variance v of a Gaussian, whose sample z = m + exp(v/2) * noise plays the part of logits. With l the
    outputs of student and teacher, kl_T(a, b) = T^2 KL(softmax(b/T) || softmax(a/T)), Tf feature_temperature:

        L = hard_weight CE(l_s, y) + logits_weight kl_T(l_s, l_t) + feature_weight kl_Tf(z_s, z_t)
            + supp_weight ( kl_Tf(z_s, l_s) + kl_Tf(z_t, l_t) )

    Targets are not detached: z_t learns from z_s too, and l_s from z_s. AFF and FDP of both networks train
    with the student and are dropped. The paper's text was not available; see `Card.inferred`.

    Terms: `hard`, `soft` (before ramp), `feature`, `supp_student`, `supp_teacher`. Notes: `agreement`, the
    part of the samples whose largest z_t is the teacher's class; `variance_student`, `variance_teacher`.
    Noise belongs to the sample (batch `index`, `view`) and the epoch, so it does not depend on how a batch is
    cut; without index or epoch it is torch's. `noise` of the batch, {"student": [B, K], "teacher": [B, K]},
    stands in its place, or a generator that is set: `method.noise.generator`.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network.
        task: classification unless given.
        taps: levels, as many layers of each network, from the first stage to the pooled vector; the last
            ones of stages and what enters the classifiers. Of `last_stage` one map of each.
        example: one batch, which sizes AFF and FDP and shows the layouts.
        layouts: of layers that are no maps, as {"student": {"blocks.3": "blc prefix=1"}}; read off shapes
            unless given. Sequences of tokens (`line`) are averaged over their valid positions.
        teacher_feature: `aff`: the teacher has an AFF of its own; `first_stage`: its shallowest level as it
            is; `last_stage`: no AFF, a 1x1 convolution of the student's map, one FDP for both.
        constraint: `kl`; `gaussian`: KL(N_t || N_s) in its place, unsampled; `features`: no FDP, the mean
            squared error of the maps, of first_stage and last_stage alone, without supp.
        logits: `kd`; `dkd` decoupled (target_weight, non_target_weight, ramp over `warmup` epochs); `none`.
        hard_weight, logits_weight, feature_weight, supp_weight: >= 0.
        temperature: T > 0 of `logits`.
        feature_temperature: Tf > 0.
        target_weight, non_target_weight: alpha and beta of dkd, >= 0.
        warmup: epochs of the ramp of dkd, > 0.
        detach_targets: z_t in `feature` and l_s in `supp_student` are fixed targets.
        sample: draws z; otherwise z = m.
        clamp_log_variance: keeps v within -10..10.
        width: K of z, the number of outputs unless given. Where these are no classes z is a vector of any
            width, and supp_weight must be 0.
        max_channels: the most channels within AFF; the student's at its deepest level where that is fewer.
        sizes: side, or height and width, of each level of AFF, deepest first; the teacher's unless given.
        teacher_preact: levels but the deepest are read before their last ReLU; unless given, where that is a
            module that does not work in place. True refuses other teachers.
        student_preact: the same of the student; no.
    """

    card = Card(
        slug="unikd",
        title="UniKD (unified distillation of features and outputs)",
        paper="Huang, Yan, Shen, Fang, Zhang: Harmonizing Knowledge Transfer in Neural Network with Unified "
        "Distillation, ECCV 2024, arXiv 2409.18565",
        equations=(
            "L = hard_weight CE(l_s, y) + logits_weight kl_T(l_s, l_t) + feature_weight kl_Tf(z_s, z_t)",
            "    + supp_weight (kl_Tf(z_s, l_s) + kl_Tf(z_t, l_t))",
            "kl_T(a, b) = T^2 KL(softmax(b/T) || softmax(a/T))",
            "z = m + exp(v/2) noise; (m, v) = two Linears of mean_hw AFF(levels)",
        ),
        tasks=("classes", "labels", "values"),
        needs=("layers: maps, tokens or vectors", "labels, unless hard_weight is 0"),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "layouts": "by network and layer: bchw, bhwc, bc, blc or line [prefix=P] [grid=HxW]; from shapes",
            "teacher_feature": "aff, first_stage or last_stage; aff",
            "constraint": "kl, gaussian or features; kl",
            "logits": "kd, dkd or none; kd",
            "hard_weight": ">= 0, weight of the labels; 1",
            "logits_weight": ">= 0, weight of the teacher's outputs; 1",
            "feature_weight": ">= 0, weight of the constraint on features; 1",
            "supp_weight": ">= 0, weight that ties z to the own outputs; 1 (0.1 in detection)",
            "temperature": "T > 0 of logits; 4 (ImageNet 1)",
            "feature_temperature": "Tf > 0 of feature and supp; 4 (1 with dkd and on ImageNet)",
            "target_weight": "dkd alone: alpha >= 0; 1",
            "non_target_weight": "dkd alone: beta >= 0; 8 (2, 6 by pair; ImageNet 0.5)",
            "warmup": "dkd alone: epochs of its ramp, > 0; 20 (ImageNet 1)",
            "detach_targets": "z_t and l_s as fixed targets; no",
            "sample": "z is drawn, else the mean; yes",
            "clamp_log_variance": "log variances within -10..10; no",
            "width": "K of z, >= 2; the number of classes",
            "max_channels": ">= 1, the most channels within AFF; 512",
            "sizes": "of each level, deepest first; the teacher's",
            "teacher_preact": "teacher levels before their last ReLU; where that can be read",
            "student_preact": "student levels before their last ReLU; no (ImageNet yes)",
        },
        taps=True,
        minimum={"soft": 0.0},
        consulted="FabienCode/mdistiller, a development repository that is taken for an author's",
        inferred=(
            "the paper's equations were not available: terms and numbers are those of that repository, which "
            "holds several unfinished variants; aff, kd, weights 1 and both temperatures 4 are our choice",
            "the teacher's AFF has its own channels and sizes, and the hidden channels of the student's",
            "teacher_preact: torch gives no value before a ReLU that is a function or works in place; such "
            "layers are read behind it unless true is asked for",
            "p_t is what enters the teacher's classifier; last_stage: 1x1 with bias, no batch norm",
            "gaussian: its formula, and that detach_targets detaches the teacher's Gaussian",
            "features: no supp, the teacher's map detached and brought to the size of the student's",
            "dkd: alpha 1, beta 8, samples without a label left out",
            "networks without stages: levels of equal groups of blocks; tokens as maps, sequences averaged",
            "outputs that are no classes: z of some width, no supp",
            "detection is not built: the heads on regions need proposals shared by both networks",
        ),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Teacher,
        *,
        task: Task | None = None,
        taps: Mapping[str, Sequence[str]] | None = None,
        example: Any = None,
        layouts: Mapping[str, Mapping[str, str]] | None = None,
        teacher_feature: TeacherFeature = "aff",
        constraint: Constraint = "kl",
        logits: Logits = "kd",
        hard_weight: float = 1.0,
        logits_weight: float = 1.0,
        feature_weight: float = 1.0,
        supp_weight: float = 1.0,
        temperature: float = 4.0,
        feature_temperature: float = 4.0,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        warmup: float = 20,
        detach_targets: bool = False,
        sample: bool = True,
        clamp_log_variance: bool = False,
        width: int | None = None,
        max_channels: int = 512,
        sizes: Sequence[int | Sequence[int]] | None = None,
        teacher_preact: bool | None = None,
        student_preact: bool = False,
    ) -> None:
        settings = Settings(
            teacher_feature=teacher_feature,
            constraint=constraint,
            logits=logits,
            hard_weight=hard_weight,
            logits_weight=logits_weight,
            feature_weight=feature_weight,
            supp_weight=supp_weight,
            temperature=temperature,
            feature_temperature=feature_temperature,
            target_weight=target_weight,
            non_target_weight=non_target_weight,
            warmup=warmup,
            detach_targets=detach_targets,
            sample=sample,
            clamp_log_variance=clamp_log_variance,
            max_channels=max_channels,
            sizes=sizes,
        )
        task = task or Classification()
        if isinstance(teacher, nn.Module):
            teacher = Teacher(teacher, task=task)
        networks = {"student": student, "teacher": teacher.model}
        before = {"student": student_preact, "teacher": teacher_preact}
        single = teacher_feature == "last_stage"
        found = find(networks, task, taps, example, single=single, before=before)
        super().__init__(student, teacher, task=task, taps=found.taps, example=example)
        self.settings, self.layouts = settings, layouts
        self.teacher_preact, self.student_preact = teacher_preact, student_preact
        self.width = found.outputs["student"] if width is None else width
        settings.check_outputs(self.task.kind, found.outputs, self.width)
        self.heads = Heads(taps_of(self, layouts or {}, example, lines=True), self._plan())
        self.noise = Noise()
        self._looked = False
        self._read_less(example)

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; the teacher stops after its last layer where its output is not read."""
        batch = self.task.batch(batch)
        assert self.teacher is not None
        teacher = self.teacher(batch, output=self.settings.reads_outputs)
        return self.losses(self.student_taps(batch), teacher, batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The terms whose weight is above 0.

        Args:
            student: output [B, K], and values at the levels, by their layouts.
            teacher: output of the same shape, and its values.
            batch: normal form; `targets` where there are labels, `noise` where it is given.
        """
        terms: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        first = student[self.heads.student_levels[0].layer]
        look, self._looked = not self._looked or first.device.type == "cpu", True
        if self.settings.hard_weight > 0:
            terms["hard"] = self._hard(student.output, batch, look)
            weights["hard"] = self.settings.hard_weight
        if self.settings.logits != "none" and self.settings.logits_weight > 0:
            terms["soft"] = self._soft(student.output, teacher.output, batch)
            weights["soft"] = self.settings.logits_weight * self._ramp()
        with torch.autocast(first.device.type, enabled=False):
            said = self.heads(student, teacher, batch, look=look)
            added, notes = self._tie(said, student.output, teacher.output, batch)
        terms |= added
        for name in added:
            weights[name] = self.settings.feature_weight if name == "feature" else self.settings.supp_weight
        return Losses(terms, weights, notes)

    def top_k_temperatures(self) -> Sequence[float] | None:
        """That of kd of classes, where nothing else reads the teacher's outputs."""
        alone = (
            self.task.kind == "classes" and self.settings.logits == "kd" and self.settings.supp_weight == 0
        )
        return (self.settings.temperature,) if alone else None

    def _hard(self, output: Tensor, batch: Mapping[str, Any], look: bool) -> Tensor:
        check_labelled(batch, self.settings.hard_weight)
        if look and self.task.kind == "classes":
            check_labels(batch["targets"], output.shape[-1])
        return self.task.loss(output, batch)

    def _soft(self, student: Tensor, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """The term of the outputs, before the ramp of dkd."""
        if self.settings.logits == "kd":
            return soft_term(self.task, student, teacher, batch, self.settings.temperature)
        rows = rows_of(self.task, student, teacher, batch)
        if rows.targets is None:
            raise RequestError(
                'logits = "dkd" needs labels, and the batch has no targets', fix='logits = "kd"'
            )
        rows.check_targets(by_value=False)
        dense = _dense(rows.teachers[0])
        target, others = decoupled_terms(student, dense, rows.targets.clamp(min=0), self.settings.temperature)
        each = self.settings.target_weight * target + self.settings.non_target_weight * others
        return reduce_rows(each, None, batch, "batchmean", counted=rows.targets >= 0)

    def _ramp(self) -> float:
        """The factor of dkd in this epoch, 0 to 1."""
        if self.settings.logits != "dkd":
            return 1.0
        epoch = float(self.epoch)
        if epoch < 1:
            raise RequestError(
                f"epoch {epoch:g}; the ramp of dkd counts epochs from 1", fix="method.epoch = 1"
            )
        return min(epoch / self.settings.warmup, 1.0)

    def _tie(
        self, said: Said, student: Tensor, teacher: Any, batch: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The constraint on features and the two terms of supp, with notes."""
        own, other = said.maps
        count = denominator(batch, "samples", len(own))
        if said.student is None or said.teacher is None:
            return {"feature": feature_error(own, resized(other, own.shape[2:]), count=count)}, {}
        epoch = self.__dict__["_loop"].get("epoch")
        z_s, z_t = (
            gaussian.sample(self.noise(side, batch, gaussian.mean, epoch) if self.settings.sample else None)
            for side, gaussian in (("student", said.student), ("teacher", said.teacher))
        )
        terms: dict[str, Tensor] = {}
        if self.settings.feature_weight > 0:
            terms["feature"] = self._feature(said.student, said.teacher, z_s, z_t, count)
        notes = {
            f"variance_{side}": gaussian.log_variance.exp().mean()
            for side, gaussian in (("student", said.student), ("teacher", said.teacher))
            if gaussian.log_variance is not None
        }
        if self.settings.supp_weight > 0:
            temperature, output = self.settings.feature_temperature, _dense(teacher)
            tied = student.detach() if self.settings.detach_targets else student
            terms["supp_student"] = mutual_divergence(z_s, tied, temperature, count=count)
            terms["supp_teacher"] = mutual_divergence(z_t, output, temperature, count=count)
            notes["agreement"] = (z_t.argmax(-1) == output.argmax(-1)).float().mean()
        return terms, notes

    def _feature(
        self, own: Gaussian, target: Gaussian, z_s: Tensor, z_t: Tensor, count: float | Tensor
    ) -> Tensor:
        """The divergence of the two Gaussians, or of their samples."""
        if self.settings.detach_targets:
            target, z_t = target.detach(), z_t.detach()
        if self.settings.constraint == "kl":
            return mutual_divergence(z_s, z_t, self.settings.feature_temperature, count=count)
        assert own.log_variance is not None and target.log_variance is not None
        return gaussian_divergence(own.mean, own.log_variance, target.mean, target.log_variance, count=count)

    def _plan(self) -> Plan:
        return Plan(
            teacher_feature=self.settings.teacher_feature,
            width=None if self.settings.constraint == "features" else self.width,
            variance=self.settings.has_variance,
            clamp=self.settings.clamp_log_variance,
            max_channels=self.settings.max_channels,
            sizes=self.settings.sizes,
        )

    def _read_less(self, example: Any) -> None:
        """The other levels of the teacher gave their sizes; of `first_stage` only the shallowest is read.

        `tapped` keeps them all: given as taps it makes the same method.
        """
        layers = [tap.layer for tap in reversed(self.heads.teacher_levels)]
        if self.teacher is not None and layers != self.tapped["teacher"]:
            self.teacher = self.teacher.reading(layers, task=self.task)
            self.teacher.taps.dry(example)


def _dense(teacher: Any) -> Tensor:
    if not isinstance(teacher, Tensor):
        raise RequestError(
            "supp and dkd compare all classes, and the teacher gave its largest alone", fix="keep all logits"
        )
    return teacher.detach()
