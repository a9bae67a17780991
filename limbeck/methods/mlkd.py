"""MLKD: the student's features point where the teacher's do, and relate several views of pictures alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from limbeck.adaptors import linear
from limbeck.errors import RequestError
from limbeck.losses import (
    check_finite,
    check_labels,
    check_not_negative,
    check_temperature,
    class_contrast,
    direction_error,
    same_nearest,
    similarity_divergence,
    unit,
    widen,
)
from limbeck.method import Card, Method, Stage, Trained, Update
from limbeck.methods._embedding import without
from limbeck.methods._penultimate import last_of_both, vector
from limbeck.methods._several_views import check_same_sample, check_views, warn_of_equal_views
from limbeck.record import Losses, Record
from limbeck.task import Classification, Task, as_model_type, denominator
from limbeck.teacher import Teacher

_TINY = 1e-12  # length below which an embedding has no direction


@final
class MLKD(Method):
    """MLKD, later DLKD (Ding et al. 2021): knowledge alignment and correlation, also without any label.

    A batch holds V views of each of B samples, one after the other, the first of them upright; with `rotate`
    in data.augment they are the quarter turns, with `simclr` strong changes, as the code's other choice for
    ImageNet. f_s, f_t [B V, D] are what enters the classifiers. m_a, m_c,
    two layers with a batch norm between, and the linear e_s, e_t train along and are dropped at deployment.

        L       = hard_weight L_hard + correlation_weight L_corr + categorical_weight L_sup
                  + alignment_weight L_align
        L_hard  = CE of the upright rows
        L_align = mean over all rows of 2 - 2 cos(m_a(f_s), f_t)
        L_corr  = mean over the rows r that are not upright of KL(softmax_j(S_t[r,j] / tau) ||
                  softmax_j(S_s[r,j] / tau)), j all upright rows, S_t[r,j] = cos(f_t,r, f_t,j) and
                  S_s[r,j] = cos(c_r, c_j) with c = m_c(f_s)
        L_sup   = mean over the rows r of u = [e_s(f_s); e_t(f_t)], each at length 1, of
                  -(1/|P_r|) sum_{k in P_r} log( exp(u_r u_k / tau_c) / (sum_{k' != r} exp(u_r u_k' / tau_c)
                  + 1e-7) ), P_r the other rows of the class of r

    L_corr is 0 for a single sample. Without labels, hard_weight = 0, the targets of a batch are never read
    and the student's classifier stays as it is; its features are judged by a classifier that is trained on
    them, see `linear_epochs`. The teacher may be trained without labels: its output is not read, and of a
    network that does not end in a Linear the output is the feature.

    The paper's text was not available: this is its code, whose three terms are those of its first version;
    the later abstracts name alignment and correlation.

    Terms: `hard`, `correlation`, `categorical`, `alignment`, as far as their weights are above 0. Notes:
    `cosine`, the mean of cos(m_a(f_s), f_t); `same_nearest`, the part of the other rows to which the same
    upright row of another sample is nearest in both networks, 0 to 1.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network, of any classes.
        task: classification unless given.
        taps: one layer of each network with values [B, D]; what enters its last Linear.
        example: one batch, of any views, which sizes the maps.
        views: V >= 2 rows a sample.
        hard_weight: gamma >= 0; 0 needs no labels.
        correlation_weight: alpha >= 0.
        categorical_weight: beta >= 0; 1 unless given, and 0 without hard_weight or classes.
        alignment_weight: delta >= 0.
        correlation_temperature: tau > 0 of L_corr.
        contrast_temperature: tau_c > 0 of L_sup.
        embedding: >= 1, width of e_s and e_t.
        hidden_factor: >= 1, hidden width of m_a in units of D_t.
        linear_epochs: >= 0, epochs afterwards in which the classifier alone learns labels, on frozen features
            in eval mode; for hard_weight = 0.
    """

    card = Card(
        slug="mlkd",
        title="MLKD (knowledge alignment and correlation)",
        paper="Ding, Yang, Hu, Krovi, Luo: Multi-level Knowledge Distillation via Knowledge Alignment and "
        "Correlation, arXiv 2012.00573, 2021; Dual-Level Knowledge Distillation, IEEE TNNLS 35(2), 2024",
        equations=(
            "L = hard_weight L_hard + correlation_weight L_corr + categorical_weight L_sup "
            "+ alignment_weight L_align",
            "L_align = mean of 2 - 2 cos(m_a(f_s), f_t)",
            "L_corr = mean over turned rows r of KL(softmax_j(cos(f_t,r, f_t,j) / tau) || "
            "softmax_j(cos(c_r, c_j) / tau)), c = m_c(f_s), j the upright rows",
            "L_sup = supervised contrast of [e_s(f_s); e_t(f_t)] / tau_c; L_hard = CE of the upright rows",
        ),
        tasks=("classes", "labels", "values"),
        needs=(
            "several views of each sample in a batch: data.augment with rotate, simclr or crops",
            "networks that end in one Linear, or layers",
            "labels, unless hard_weight is 0",
        ),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "views": "V >= 2, rows a sample; 4",
            "hard_weight": ">= 0, gamma; 1, without labels 0",
            "correlation_weight": ">= 0, alpha; 50 (ImageNet 20)",
            "categorical_weight": ">= 0, beta, classes alone; 1 (ImageNet 0.5), without labels 0",
            "alignment_weight": ">= 0, delta; 20 (ImageNet 10)",
            "correlation_temperature": "tau > 0; 0.5",
            "contrast_temperature": "> 0 of the categorical term; 0.07",
            "embedding": ">= 1, width of the categorical embeddings; 128",
            "hidden_factor": ">= 1, hidden width of the alignment by that of the teacher; 16",
            "linear_epochs": ">= 0, epochs of the classifier alone after hard_weight = 0; not known; 0",
        },
        couples_batch=True,
        taps=True,
        consulted="ifding/DLKD",
        inferred=(
            "all values are those of the authors' code; the paper's text was not available",
            "the categorical term, with its embeddings, is on where labels are used (option "
            "categorical_weight); samples without a label take no part in it",
            "without labels: both terms with their usual weights, the classifier untouched, then trained "
            "alone on frozen features (option linear_epochs)",
            "rows of zeros have cosine 0 and no gradient; embeddings shorter than 1e-12 too (the code: not a "
            "number)",
            "several labels or real values a sample: their own loss, no categorical term",
            "other views than turns: whatever data.augment draws for each; simclr blurs by 0.1 to 2 pixels",
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
        views: int = 4,
        hard_weight: float = 1.0,
        correlation_weight: float = 50.0,
        categorical_weight: float | None = None,
        alignment_weight: float = 20.0,
        correlation_temperature: float = 0.5,
        contrast_temperature: float = 0.07,
        embedding: int = 128,
        hidden_factor: int = 16,
        linear_epochs: int = 0,
    ) -> None:
        task = task or Classification()
        if categorical_weight is None:
            categorical_weight = 1.0 if hard_weight > 0 and task.kind == "classes" else 0.0
        _check_weights(
            hard_weight=hard_weight,
            correlation_weight=correlation_weight,
            categorical_weight=categorical_weight,
            alignment_weight=alignment_weight,
        )
        check_temperature(correlation_temperature)
        check_temperature(contrast_temperature)
        _check_counts(
            views=(views, 2),
            embedding=(embedding, 1),
            hidden_factor=(hidden_factor, 1),
            linear_epochs=(linear_epochs, 0),
        )
        if categorical_weight > 0 and task.kind != "classes":
            raise RequestError(
                f"categorical_weight {categorical_weight:g} compares samples of one class; the task has "
                f"{task.kind}",
                fix="categorical_weight = 0",
            )
        source = teacher if isinstance(teacher, Teacher) else Teacher(teacher, task=task)
        headless = hard_weight == 0
        own, other = last_of_both(student, source.model, task, taps, example, "mlkd", headless=headless)
        paths = {"student": [own.path], "teacher": [other.path]}
        super().__init__(student, source, task=task, taps=paths, example=example)
        self.views, self.hard_weight = views, hard_weight
        self.correlation_weight, self.categorical_weight = correlation_weight, categorical_weight
        self.alignment_weight, self.linear_epochs = alignment_weight, linear_epochs
        self.correlation_temperature = correlation_temperature
        self.contrast_temperature = contrast_temperature
        self.embedding, self.hidden_factor = embedding, hidden_factor
        self.widths, self.outputs = (own.width, other.width), own.number
        # In a list, which registers nothing: it is a part of the student.
        self._classifier = [own.classifier] if own.classifier is not None else []
        self._looked = False
        self._check_linear()
        self._build()

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; networks stop after their features where no output is read.

        Args:
            batch: the V views of each sample, rows that follow each other, in any form that the task takes;
                for `linear` samples as they are.
            update: `student`, or `linear` in the stage that follows hard_weight = 0.
        """
        batch = self.task.batch(batch)
        assert self.teacher is not None
        if update == "linear":
            output = self.student_taps(batch).output
            return Losses({"hard": self.task.loss(output, batch)}, {"hard": 1.0})
        student = self.student_taps(batch, output=self.hard_weight > 0)
        return self.losses(student, self.teacher(batch, output=False), batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The terms whose weights are above 0.

        Args:
            student: features [B V, D_s], and outputs [B V, K] where hard_weight is above 0.
            teacher: features [B V, D_t].
            batch: normal form; `targets` [B V] are read where a term needs labels alone.
        """
        own, target = self._features(student, teacher)
        self._look(target, batch)
        terms: dict[str, Tensor] = {}
        notes: dict[str, Tensor] = {}
        if self.hard_weight > 0:
            terms["hard"] = self._hard(student.output, batch)
        with torch.autocast(own.device.type, enabled=False):  # CPU autocast would round similarities
            own, target = widen(own), widen(target)
            if self.correlation is not None:
                terms["correlation"], notes["same_nearest"] = self._correlate(own, target, batch)
            if self.categorical_weight > 0:
                terms["categorical"] = self._contrast(own, target, batch)
            if self.alignment is not None:
                terms["alignment"], notes["cosine"] = self._align(own, target, batch)
        weights = {
            "hard": self.hard_weight,
            "correlation": self.correlation_weight,
            "categorical": self.categorical_weight,
            "alignment": self.alignment_weight,
        }
        return Losses(terms, {name: weights[name] for name in terms}, notes)

    def stages(self) -> Sequence[Stage]:
        """One stage; without labels it leaves out the classifier, for which `linear_epochs` adds another."""
        assert self.student is not None
        labels = self.hard_weight > 0
        idle = self._classifier if not labels else []
        trained: Trained = without(self.student, idle[0]) if idle else self.student
        update = Update("student", {"student": trained, "method": self._own()})
        first = Stage("train", [update], views=self.views, scored=labels)
        if not self.linear_epochs:
            return [first]
        linear_update = Update("linear", {"classifier": self._classifier})
        return [first, Stage("linear", [linear_update], epochs=self.linear_epochs, data="labelled")]

    # -- terms ---------------------------------------------------------------------------------------------

    def _features(self, student: Record, teacher: Record) -> tuple[Tensor, Tensor]:
        """f_s and f_t; refuses other widths than at construction, and rows that are not V views of each."""
        found = []
        sides = (("student", student), ("teacher", teacher))
        for (side, record), width in zip(sides, self.widths, strict=True):
            path = self.tapped[side][0]
            value = vector(record[path], f"{side} {path!r}")
            if value.shape[1] != width:
                raise RequestError(
                    f"{side} features {tuple(value.shape)}; at construction they had {width} entries"
                )
            check_views(len(value), self.views)
            found.append(value)
        own, target = found
        if len(own) != len(target):
            raise RequestError(f"{len(own)} student features and {len(target)} teacher features")
        return own, target

    def _hard(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The loss of the task on the upright rows."""
        targets = self._targets(batch, len(output))
        upright: dict[str, Any] = {"targets": targets[:: self.views]}
        if batch.get("count") is not None:
            upright["count"] = {name: value / self.views for name, value in batch["count"].items()}
        return self.task.loss(output[:: self.views], upright)

    def _correlate(self, own: Tensor, target: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """L_corr, and the part of the turned rows with one nearest other sample in both networks."""
        assert self.correlation is not None
        mapped = widen(self.correlation(as_model_type(self.correlation, own)))
        rows = denominator(batch, "samples", len(own)) * (self.views - 1) / self.views
        temperature = self.correlation_temperature
        error = similarity_divergence(mapped, target, self.views, temperature, count=rows)
        return error, same_nearest(mapped, target, self.views)

    def _contrast(self, own: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """L_sup over the rows that have a label."""
        targets = self._targets(batch, len(own))
        pairs = zip(self.embeddings, (own, target), strict=True)
        both = torch.cat([unit(each(as_model_type(each, value)), _TINY) for each, value in pairs])
        labelled = self.task.labelled(targets)
        temperature = self.contrast_temperature
        each = class_contrast(both, targets.repeat(2), temperature, counted=labelled.repeat(2))
        anchors = 2 * torch.as_tensor(denominator(batch, "targets", labelled.sum()))
        return each.sum() / torch.where(anchors > 0, anchors, 1)

    def _align(self, own: Tensor, target: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """L_align, and the mean cosine."""
        assert self.alignment is not None
        mapped = widen(self.alignment(as_model_type(self.alignment, own)))
        each = direction_error(mapped, target.to(mapped.dtype), "none")
        return each.sum() / denominator(batch, "samples", len(own)), 1 - each.detach().mean() / 2

    def _targets(self, batch: Mapping[str, Any], rows: int) -> Tensor:
        """The targets of a batch, one a row; asked for by terms that need labels alone."""
        targets = batch.get("targets")
        if targets is None or "mixed" in batch:
            said = "has no targets" if targets is None else "mixes samples (mixup, cutmix)"
            raise RequestError(
                f"hard_weight {self.hard_weight:g} and categorical_weight {self.categorical_weight:g} need "
                f"the label of each sample, and the batch {said}",
                fix="hard_weight = 0, categorical_weight = 0 learn from the teacher alone",
            )
        if not isinstance(targets, Tensor) or len(targets) != rows:
            shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise RequestError(f"targets {shape} for {rows} rows; needed one a row, the same for all views")
        return targets

    def _look(self, target: Tensor, batch: Mapping[str, Any]) -> None:
        """Refuses what makes the terms meaningless; later reading back would stall another device."""
        first, self._looked = not self._looked, True
        if not first and target.device.type != "cpu":
            return
        check_finite(target, f"teacher features at {self.tapped['teacher'][0]!r}")
        reads = self.hard_weight > 0 or self.categorical_weight > 0
        targets = self._targets(batch, len(target)) if reads else None
        if isinstance(batch.get("index"), Tensor):
            check_same_sample(batch["index"], self.views, "index")
        elif targets is not None:
            check_same_sample(targets, self.views, "labels")
        if targets is not None and self.task.kind == "classes" and self.outputs:
            check_labels(targets, self.outputs)
        if first:
            warn_of_equal_views(batch, self.views)
        if len(target) == self.views and not (reads or self.alignment_weight):
            warnings.warn(
                "the correlation of a single sample is 0 whatever the features, and no other term has a "
                "weight: nothing is learned from this batch",
                stacklevel=2,
            )

    # -- at construction -----------------------------------------------------------------------------------

    def _build(self) -> None:
        """Makes the maps of the terms that have a weight; drawn from torch's generator."""
        own, target = self.widths
        hidden = self.hidden_factor * target
        self.alignment = _two_layers(own, hidden, target) if self.alignment_weight > 0 else None
        self.correlation = _two_layers(own, own, own) if self.correlation_weight > 0 else None
        widths = self.widths if self.categorical_weight > 0 else ()
        self.embeddings = nn.ModuleList(linear(width, self.embedding) for width in widths)
        like = next(value for value in self.student_taps.model.parameters() if value.is_floating_point())
        for part in (self.alignment, self.correlation, self.embeddings):
            if part is not None:  # where the student is, in its precision, at least float32
                part.to(like.device, torch.promote_types(like.dtype, torch.float32))

    def _check_linear(self) -> None:
        if not self.linear_epochs:
            return
        if self.hard_weight > 0:
            raise RequestError(
                f"linear_epochs {self.linear_epochs} trains a classifier on features that were learned "
                f"without labels, and hard_weight is {self.hard_weight:g}",
                fix="hard_weight = 0",
            )
        if not self._classifier:
            raise RequestError(
                f"linear_epochs {self.linear_epochs} trains the student's classifier, and it does not end in "
                "one Linear",
                fix="linear_epochs = 0",
            )


def _two_layers(width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear: [N, width] -> [N, out]."""
    return nn.Sequential(
        linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), linear(hidden, out)
    )


def _check_weights(**weights: float) -> None:
    check_not_negative(**weights)
    taught = [name for name in weights if name != "hard_weight"]
    if not any(weights[name] > 0 for name in taught):
        raise RequestError(f"{', '.join(taught[:-1])} and {taught[-1]} 0; needed one above 0")


def _check_counts(**counts: tuple[int, int]) -> None:
    for name, (value, least) in counts.items():
        if value < least:
            raise RequestError(f"{name} {value}; needed a whole number >= {least}")
