"""SemCKD: every student layer learns from all teacher layers, weighted by a learned attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast, final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError, nearest
from limbeck.losses import check_finite, check_not_negative, check_temperature, widen
from limbeck.method import Card, Method, Stage, Trained, Update
from limbeck.methods._agreement import check_choice
from limbeck.methods._cross_layers import (
    Association,
    Map,
    Projection,
    notes_of,
    pair_error,
    same_number,
    similarity,
)
from limbeck.methods._rows import check_labelled, soft_term
from limbeck.methods._sequences import valid_positions
from limbeck.record import Losses, Record
from limbeck.task import Task, denominator, num_samples
from limbeck.teacher import Teacher

Attention = Literal["learned", "detached", "equal", "fixed"]
Incomplete = Literal["skip", "logits", "pad"]


@final
class SemCKD(Method):
    """SemCKD (Chen et al. 2021): cross-layer distillation with semantic calibration.

    With F_i the S student maps, G_j the T teacher maps of a batch of b samples, P_ij a projection each:

        A(X)      = X X^T, X a map as [b, C*H*W]                                        [b, b]
        a[n,i,j]  = softmax_j( q_i(A(F_i))[n] . k_j(A(G_j))[n] / attention_temperature )
        m[n,i,j]  = mean over C,H,W of (P_ij(pool F_i)[n] - pool G_j[n])^2
        L_sem     = 1/(b*S) sum_{n,i,j} a[n,i,j] m[n,i,j]
        L         = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * L_sem

    Both maps of a pair are averaged to the smaller height and width. q_i and k_j are small networks over the
    rows of A, whose input width is the number of samples: every batch that they see in training has at most
    `attention_batch` samples (of a micro-batch and a process, where a loop cuts batches), and smaller ones
    are handled by `incomplete`. Outside training a batch of another size gives the hard and soft terms alone.

    Terms: `hard`, `soft` (T^2 inside), `semckd` (L_sem). Notes: `attention` [S, T], the mean over samples;
    `attention_entropy` in nats, mean over samples and student layers; `pair_error` [S, T], the mean of m
    (fixed: [S, 1]). Attention and projections train with the student and are dropped afterwards.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network.
        task: classification unless given.
        taps: the layers, maps [B, C, H, W] (see `sequences`); the outputs of stages, after their last ReLU.
        example: one batch, which sizes the projections.
        hard_weight: gamma >= 0; 1 in the paper. 0 needs no labels.
        soft_weight: alpha >= 0; 1 in the paper.
        beta: >= 0; 400 (CIFAR-100), 50 (ImageNet). In the first steps beta * semckd should be about as large
            as the hard term: 400 belongs to maps of CIFAR networks.
        temperature: of the soft term, T > 0; 4 in the paper.
        attention: `learned`; `detached`, without gradient from the attention into the student maps; `equal`,
            all weights 1/T; `fixed`, one teacher layer for each student layer, by `pairs`. The last two have
            no attention networks, and so no rule on the batch size.
        attention_temperature: > 0, 1 in the paper; smaller is sharper. At 1 no layer is ever switched off.
        factor: the embeddings have attention_batch // factor entries; 4 in the paper.
        attention_batch: b; the size of the example unless given.
        incomplete: for training batches below b: `skip` (the paper: no step; our engine leaves them out, in
            another loop they are refused), `logits` (hard and soft terms alone), `pad` (zero columns in A).
        pairs: of `fixed`, the teacher layer of each student layer.
        sequences: layers are [B, L, D], averaged over L, with 1-D projections. Padding is set to 0 before the
            similarities and does not count in m.
    """

    card = Card(
        slug="semckd",
        title="SemCKD (cross-layer distillation with semantic calibration)",
        paper="Chen, Mei, Zhang, Wang, Wang, Feng, Chen: Cross-Layer Distillation with Semantic Calibration, "
        "AAAI 2021, arXiv 2012.03236; journal: IEEE TKDE 35(6), 2023",
        equations=(
            "L = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * L_sem",
            "L_sem = 1/(b*S) sum_{n,i,j} a[n,i,j] * mean_{C,H,W} (P_ij(pool F_i)[n] - pool G_j[n])^2",
            "a[n,i,j] = softmax_j( q_i(F_i F_i^T)[n] . k_j(G_j G_j^T)[n] / attention_temperature )",
        ),
        tasks=("classes", "labels", "values", "tokens"),
        needs=(
            "layers with maps [B, C, H, W], or sequences",
            "labels, unless hard_weight is 0",
            "batches of one size, unless attention is equal or fixed",
        ),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "hard_weight": ">= 0, gamma, weight of the labels; 1",
            "soft_weight": ">= 0, alpha, weight of the teacher's outputs; 1",
            "beta": ">= 0, weight of the layers; 400 (CIFAR-100), 50 (ImageNet)",
            "temperature": "T > 0 of the soft term; 4",
            "attention": "learned, detached, equal or fixed; learned",
            "attention_temperature": "> 0, `soft` in the authors' code; 1",
            "factor": "1 to attention_batch, embeddings have attention_batch // factor entries; 4",
            "attention_batch": "samples a batch; 64 (CIFAR-100), 32 a process (ImageNet); as the loader",
            "incomplete": "smaller batches: skip, logits or pad; skip",
            "pairs": "fixed attention: the teacher layer of each student layer",
            "sequences": "layers are [B, L, D]; no",
        },
        couples_batch=True,
        taps=True,
        minimum={"soft": 0.0},
        consulted="DefangChen/SemCKD, DefangChen/SimKD",
        inferred=(
            "both maps of a pair are averaged to the smaller height and width; the code compares heights",
            "torch's default initialisation of projections and attention",
            "incomplete batches: logits and pad; fixed attention has its S projections alone",
            "the whole sequence variant; batch statistics of its projections count padding, as zeros",
            "refused: weights below 0, classes, batch sizes or channels that differ, one value a channel",
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
        hard_weight: float = 1.0,
        soft_weight: float = 1.0,
        beta: float = 400.0,
        temperature: float = 4.0,
        attention: Attention = "learned",
        attention_temperature: float = 1.0,
        factor: int = 4,
        attention_batch: int | None = None,
        incomplete: Incomplete = "skip",
        pairs: Mapping[str, str] | None = None,
        sequences: bool = False,
    ) -> None:
        check_not_negative(hard_weight=hard_weight, soft_weight=soft_weight, beta=beta)
        check_choice("attention", attention, get_args(Attention))
        check_choice("incomplete", incomplete, get_args(Incomplete))
        check_temperature(temperature)
        if incomplete == "logits" and hard_weight == soft_weight == 0:
            raise RequestError('incomplete = "logits" needs a hard_weight or soft_weight above 0')
        if not attention_temperature > 0:
            raise RequestError(f"attention_temperature {attention_temperature}; needed a number above 0")
        super().__init__(student, teacher, task=task, taps=taps, example=example)
        self.hard_weight, self.soft_weight, self.beta = hard_weight, soft_weight, beta
        self.temperature, self.attention_temperature = temperature, attention_temperature
        self.attention, self.incomplete, self.factor = attention, incomplete, factor
        self.sequences = sequences
        self._check_layers()
        self.pairs, self.partners = pairs, self._partners(pairs)
        self.projections = nn.ModuleList(
            nn.ModuleList(self._projection(i, j) for j in partners)
            for i, partners in enumerate(self.partners)
        )
        if attention_batch is None:
            attention_batch = num_samples(self.task.batch(example))
        self.attention_batch = attention_batch
        self.association = self._associate() if attention in ("learned", "detached") else None
        self._looked = False

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; the teacher stops after its last tapped layer where its output is not read."""
        batch = self.task.batch(batch)
        assert self.teacher is not None
        teacher = self.teacher(batch, output=self.soft_weight > 0)
        return self.losses(self.student_taps(batch), teacher, batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The hard, the soft and the semantic term.

        Args:
            student: the output, and maps [n, C, H, W] (or [n, L, D]) at the tapped layers.
            teacher: an output of the same shape, and its maps.
            batch: normal form; `targets` where there are labels, a mask where sequences are padded.
        """
        terms: dict[str, Tensor] = {}
        notes: dict[str, Tensor] = {}
        if self.hard_weight > 0:
            terms["hard"] = self._hard(student.output, batch)
        if self.soft_weight > 0:
            terms["soft"] = soft_term(self.task, student.output, teacher.output, batch, self.temperature)
        own, others = self._maps("student", student, batch), self._maps("teacher", teacher, batch)
        sides = {"student": own, "teacher": others}
        values = {f"{side} {each.layer}": each.value for side, maps in sides.items() for each in maps}
        samples = same_number(values)
        if self._applies(samples):
            attention, errors = self._attend(own, others), self._errors(own, others)
            weighted = errors.sum() if self.attention == "fixed" else (attention * errors).sum()
            terms["semckd"] = weighted / (denominator(batch, "samples", samples) * len(own))
            notes = notes_of(attention, errors)
        weights = {"hard": self.hard_weight, "soft": self.soft_weight, "semckd": self.beta}
        return Losses(terms, {name: weights[name] for name in terms}, notes)

    def stages(self) -> Iterable[Stage]:
        """One stage: the student, the attention and the projections, under the same settings."""
        assert self.student is not None
        learned = [] if self.association is None else [self.association]
        groups: dict[str, Trained] = {
            "student": [self.student],
            "attention": learned,
            "projections": [self.projections],
        }
        whole, begin = bool(learned) and self.incomplete == "skip", self._enough if learned else None
        return [Stage("train", [Update("student", groups)], begin=begin, whole_batches=whole)]

    def _hard(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        check_labelled(batch, self.hard_weight)
        return self.task.loss(output, batch)

    def _attend(self, student: Sequence[Map], teacher: Sequence[Map]) -> Tensor:
        """The weights a, [n, S, T]."""
        like = widen(student[0].value[:0])  # type and device of the errors
        shape = (len(student[0].value), len(student), len(teacher))
        if self.attention == "equal":
            return like.new_full(shape, 1 / len(teacher))
        if self.attention == "fixed":
            chosen = torch.tensor(self.partners).squeeze(1)
            return F.one_hot(chosen, len(teacher)).to(like).expand(shape)
        own = [each.value.detach() if self.attention == "detached" else each.value for each in student]
        queries, keys = [similarity(value) for value in own], [similarity(each.value) for each in teacher]
        self._look([*queries, *keys], [each.layer for each in (*student, *teacher)])
        assert self.association is not None
        attention: Tensor = self.association(queries, keys, self.attention_temperature)
        return attention

    def _errors(self, student: Sequence[Map], teacher: Sequence[Map]) -> Tensor:
        """The errors m, [n, S, T], or [n, S, 1] where attention is fixed."""
        rows = []
        for own, partners, projections in zip(student, self.partners, self.projections, strict=True):
            pairs = zip(cast(nn.ModuleList, projections), partners, strict=True)
            rows.append(torch.stack([pair_error(each, own, teacher[j]) for each, j in pairs], 1))
        return torch.stack(rows, 1)

    def _applies(self, samples: int) -> bool:
        """Whether L_sem is taken on a batch of this size."""
        full = self.attention_batch
        if self.association is None or samples == full:
            return True
        if samples < full and self.incomplete == "pad":
            return True
        if not self.training or (samples < full and self.incomplete == "logits"):
            return False
        if samples > full:
            raise RequestError(
                f"a batch of {samples} samples, and the attention was built for {full} (attention_batch)",
                fix=f"attention_batch = {samples}",
            )
        raise RequestError(
            f"a training batch of {samples} samples, and the attention was built for {full}; "
            'incomplete = "skip" takes no step on it',
            fix='DataLoader(..., drop_last=True); incomplete = "logits" or "pad"; or attention_batch = '
            f"{samples}, if every batch (of a micro-batch, of a process) is that small",
        )

    def _maps(self, side: str, record: Record, batch: Mapping[str, Any]) -> list[Map]:
        """The tapped values of one side, channels first, padding set to 0."""
        maps = []
        for path in self.tapped[side]:
            value = record[path]
            self._check_value(side, path, value)
            mask = None
            if self.sequences:
                mask = valid_positions(batch, value, path)
                value = value if mask is None else value.masked_fill(~mask.unsqueeze(2), 0)
                value = value.transpose(1, 2)
            maps.append(Map(path, value, mask))
        return maps

    def _check_value(self, side: str, path: str, value: Tensor) -> None:
        built, axis = self.shapes[side][path], 2 if self.sequences else 1
        if value.ndim != len(built) or value.shape[axis] != built[axis]:
            raise RequestError(
                f"{side} layer {path!r} gives {tuple(value.shape)}; "
                f"its modules were built for {tuple(built)}",
                fix="an example batch like those of the training",
            )
        if side == "teacher" and value.requires_grad:
            raise RequestError(
                f"teacher layer {path!r} requires gradient, and the teacher is frozen",
                fix="limbeck.Teacher(model), or record it under torch.no_grad()",
            )

    def _look(self, similarities: Sequence[Tensor], layers: Sequence[str]) -> None:
        """Looks for what is not finite: each time on the CPU, else at the first batch alone.

        Reading a value back from an accelerator would stall it in every step.
        """
        first, self._looked = not self._looked, True
        if first or similarities[0].device.type == "cpu":
            for layer, value in zip(layers, similarities, strict=True):
                check_finite(value, f"similarities at layer {layer!r}")

    def _enough(self, data: Any) -> Any:
        """Refuses, before the first step, data that give no batch of the attention's size."""
        if self.incomplete != "pad" and len(data) < self.attention_batch:
            raise RequestError(
                f"{len(data)} samples give no batch of attention_batch = {self.attention_batch}",
                fix=f"attention_batch and batch size of at most {len(data)}",
            )
        return data

    def _check_layers(self) -> None:
        rank, form = (3, "[B, L, D]") if self.sequences else (4, "[B, C, H, W]")
        for side, paths in self.tapped.items():
            double = {path for path in paths if paths.count(path) > 1}
            if double:
                raise RequestError(
                    f"{side} layer {min(double)!r} is tapped twice", fix="name each layer once"
                )
            for path in paths:
                shape = self.shapes[side][path]
                if len(shape) != rank:
                    raise RequestError(
                        f"{side} layer {path!r} gives {tuple(shape)}; semckd needs {form}"
                        + ("" if self.sequences else " (sequences = true takes [B, L, D])"),
                        fix=f'taps = {{ {side} = ["..."] }} with layers of that form',
                    )

    def _partners(self, pairs: Mapping[str, str] | None) -> list[list[int]]:
        """The teacher layers, counted from 0, that each student layer is compared with."""
        students, teachers = self.tapped["student"], self.tapped["teacher"]
        if self.attention != "fixed":
            if pairs is not None:
                raise RequestError(
                    f"pairs are for fixed attention, not {self.attention}", fix="leave pairs out"
                )
            return [list(range(len(teachers))) for _ in students]
        given = dict(pairs or {})
        for names, options in ((given.keys(), students), (given.values(), teachers)):
            unknown = [name for name in names if name not in options]
            if unknown:
                near = nearest(unknown[0], options) or options
                raise RequestError(f"pairs name {unknown[0]!r}, which is not tapped", near=near)
        missing = [path for path in students if path not in given]
        if missing:
            raise RequestError(
                f"fixed attention needs a teacher layer for each student layer, and {missing[0]!r} has none",
                fix=f'pairs = {{ "{missing[0]}" = "{teachers[0]}" }}',
            )
        return [[teachers.index(given[path])] for path in students]

    def _projection(self, i: int, j: int) -> Projection:
        axis = 2 if self.sequences else 1
        own, other = self.tapped["student"][i], self.tapped["teacher"][j]
        widths = self.shapes["student"][own][axis], self.shapes["teacher"][other][axis]
        return Projection(*widths, dimensions=1 if self.sequences else 2)

    def _associate(self) -> Association:
        if not 1 <= self.factor <= self.attention_batch:
            raise RequestError(
                f"factor {self.factor} and attention_batch {self.attention_batch}; needed 1 <= factor <= "
                "attention_batch, since embeddings have attention_batch // factor entries",
                fix="a larger batch, or factor = 1",
            )
        students, teachers = len(self.tapped["student"]), len(self.tapped["teacher"])
        return Association(students, teachers, self.attention_batch, self.attention_batch // self.factor)
