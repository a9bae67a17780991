"""UHKD: networks of any family compared by the spectra of their features, where a place means nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses import check_labels, check_not_negative, check_temperature, feature_error
from limbeck.losses.spectra import Downsample, Representation
from limbeck.method import Card, Method
from limbeck.methods._agreement import check_choice
from limbeck.methods._cross_layers import same_number
from limbeck.methods._rows import check_labelled, soft_term
from limbeck.methods._sequences import valid_positions
from limbeck.methods._spectral import (
    Kind,
    Level,
    Normalise,
    Projector,
    StudentPath,
    Tap,
    Transform,
    check_target,
    share_at_zero,
    taps_of,
)
from limbeck.record import Losses, Record
from limbeck.task import Task, denominator
from limbeck.teacher import Teacher

Filter = Literal["gaussian", "none"]


@final
class UHKD(Method):
    """UHKD (Yu et al. 2025): heterogeneous distillation by frequency-domain features and logits.

    With f_s, f_t the features of a level as maps, P its 1x1 convolution from Cs to Ct channels, k its block:

        Z(f)[u,v] = (H W)^(-1/2) sum_yx f[y,x] exp(-2 pi i (u y/H + v x/W)),   u, v = -(k//2) .. k - 1 - k//2
        R(f)      = sqrt( |G Z(f)|^2 + epsilon ),   G[u,v] = exp(-(u^2 + v^2) / (2 (sigma k/2)^2))
        L_level   = mean over B,Ct,k,k of ( R(P f_s) - R(f_t) )^2
        L         = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * sum_levels weight * L_level

    Every value becomes a map: tokens without those before their grid, row by row; a vector is one cell. A
    frequency counts cycles over the picture, so unequal grids need no resizing; the block is as large as the
    smaller grid. The paper's text was not available: what it leaves open are options, the default first.

    Terms: `hard`, `soft` (T^2 inside), `freq1`.. by level. Notes: `mean_target` [levels], the mean of R(f_t);
    `zero_share` [levels], the part of its energy at the zero frequency, 0 to 1; `freq_to_hard`, what the
    levels add to the total over the hard term (0 where that is 0). P trains with the student and is dropped.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network.
        task: classification unless given.
        taps: as many layers of the student as of the teacher, one a level; the last ones of stages, of
            networks without stages those of equal groups of blocks.
        example: one batch, which sizes P and shows the layouts.
        layouts: how values lie on the picture, by network and layer: `bchw`, `bhwc`, `bc`, `blc` tokens row
            by row, `line` tokens of a sequence (sequences of one length alone; never without being named).
            The last two with `prefix=P` tokens before the grid; `blc` with `grid=HxW`, else a square. As
            {"student": {"blocks.3": "blc prefix=1"}}. Layers that are not named are read off their shape:
            tokens of square pictures are a square after 0 to 2 tokens (name those of networks with more);
            what fits two ways or none is refused.
        hard_weight: >= 0, weight of the labels. 0 needs none.
        soft_weight: alpha >= 0, weight of the teacher's outputs.
        beta: >= 0, weight of the levels.
        temperature: of the soft term, T > 0.
        level_weights: >= 0, one for each level; 1 unless given.
        block: k >= 1, the same at all levels or one for each; the smallest side of both maps unless given.
        sigma: > 0, width of the low pass G relative to half the block.
        epsilon: >= 0; 0 has no finite gradient where a coefficient is 0, as those of constant maps.
        representation: `magnitude`; `log_magnitude` log(1 + R); `complex` real and imaginary part, which
            keeps places: with no filter, whole blocks and equal sizes half the squared error of the maps.
        filter: `gaussian`, or `none` for G = 1.
        downsample: `crop` of Z; `pool` averages R of the whole map to k x k, then multiplies by G.
        filter_student: G acts on the student too; otherwise equal features do not give 0.
        student_path: `spectral`; `direct`: P f_s averaged to k x k is itself compared with R(f_t) (`complex`:
            P has 2 Ct channels).
        normalise: `none`, or `rms`: R over the root of its mean square + 1e-6 by sample, on both sides.
        projector: P: `conv`; `conv_bn` with a batch norm after it, which couples the samples of a batch;
            `mlp` two 1x1 convolutions with GELU between, Ct channels wide.
    """

    card = Card(
        slug="uhkd",
        title="UHKD (unified heterogeneous distillation in the frequency domain)",
        paper="Yu, Pan, Zhang, Guan, Jiang: UHKD: A Unified Framework for Heterogeneous Knowledge "
        "Distillation via Frequency-Domain Representations, arXiv 2510.24116, 2025",
        equations=(
            "L = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * sum_levels weight * L_level",
            "L_level = mean over B,Ct,k,k of (R(P f_s) - R(f_t))^2",
            "R(f) = sqrt(|G Z(f)|^2 + epsilon), Z the central k x k block of the orthonormal transform",
            "G[u,v] = exp(-(u^2 + v^2) / (2 (sigma k/2)^2))",
        ),
        tasks=("classes", "labels", "values"),
        needs=("layers: maps, tokens or vectors", "labels, unless hard_weight is 0"),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "layouts": "by network and layer: bchw, bhwc, bc, blc or line [prefix=P] [grid=HxW]; from shapes",
            "hard_weight": ">= 0, weight of the labels; not known; 1",
            "soft_weight": ">= 0, alpha, weight of the teacher's outputs; not known; 1",
            "beta": ">= 0, weight of the levels; not known; 1",
            "temperature": "T > 0 of the soft term; not known; 1",
            "level_weights": ">= 0, one for each level; not known; 1",
            "block": "k >= 1, for all levels or each; not known; the smallest side of both maps",
            "sigma": "> 0, width of the low pass relative to k/2; not known; 0.5",
            "epsilon": ">= 0, inside the root; not known; 1e-8",
            "representation": "magnitude, log_magnitude or complex; not known; magnitude",
            "filter": "gaussian or none; not known; gaussian",
            "downsample": "crop or pool; not known; crop",
            "filter_student": "the low pass acts on the student too; not known; yes",
            "student_path": "spectral or direct; not known; spectral",
            "normalise": "none or rms; not known; none",
            "projector": "conv, conv_bn or mlp; not known; conv",
        },
        taps=True,
        minimum={"soft": 0.0},
        consulted="Hao840/OFAKD for the protocol alone; no code of the method was found",
        inferred=(
            "all but these: Fourier transform, compact teacher features without parameters, a learnable "
            "projection of the student, levels, squared error + KL + CE. The paper's text was not available",
            "levels are depths of the networks, weight 1 each; all its numbers follow the usual protocol",
            "readings, each an option: representation, filter, downsample, filter_student, student_path, "
            "normalise, projector",
            "orthonormal transform; a 1x1 convolution with bias in every level, also where channels agree",
            "layouts that are not named are read off shapes; the layout line is not in the paper",
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
        hard_weight: float = 1.0,
        soft_weight: float = 1.0,
        beta: float = 1.0,
        temperature: float = 1.0,
        level_weights: Sequence[float] | None = None,
        block: int | Sequence[int] | None = None,
        sigma: float = 0.5,
        epsilon: float = 1e-8,
        representation: Representation = "magnitude",
        filter: Filter = "gaussian",
        downsample: Downsample = "crop",
        filter_student: bool = True,
        student_path: StudentPath = "spectral",
        normalise: Normalise = "none",
        projector: Kind = "conv",
    ) -> None:
        check_not_negative(hard_weight=hard_weight, soft_weight=soft_weight, beta=beta, epsilon=epsilon)
        if not 0 < sigma < float("inf"):
            raise RequestError(f"sigma {sigma}; needed a number above 0", fix="sigma = 0.5")
        check_temperature(temperature)
        check_choice("representation", representation, get_args(Representation))
        check_choice("filter", filter, get_args(Filter))
        check_choice("downsample", downsample, get_args(Downsample))
        check_choice("student_path", student_path, get_args(StudentPath))
        check_choice("normalise", normalise, get_args(Normalise))
        check_choice("projector", projector, get_args(Kind))
        if projector == "conv_bn":
            self.card = replace(self.card, couples_batch=True)
        super().__init__(student, teacher, task=task, taps=taps, example=example)
        self.hard_weight, self.soft_weight, self.beta = hard_weight, soft_weight, beta
        self.temperature, self.block, self.layouts = temperature, block, layouts
        low_pass = sigma if filter == "gaussian" else None
        self.transform = Transform(
            representation, low_pass, downsample, filter_student, student_path, normalise, epsilon
        )
        self.projector = projector
        self.levels = self._pair(layouts or {}, example)
        self.level_weights = self._weights(level_weights)
        self.projectors = nn.ModuleList(self._projector(level) for level in self.levels)
        self._looked = False

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; the teacher stops after its last tapped layer where its output is not read."""
        batch = self.task.batch(batch)
        assert self.teacher is not None
        teacher = self.teacher(batch, output=self.soft_weight > 0)
        return self.losses(self.student_taps(batch), teacher, batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The hard and the soft term, and one for each level.

        Args:
            student: the output, and values at the tapped layers, by their layouts.
            teacher: an output of the same shape, and its values.
            batch: normal form; `targets` where there are labels.
        """
        terms: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        # Reading a value back from an accelerator stalls it: there at the first batch alone.
        look = not self._looked or student[self.levels[0].student.layer].device.type == "cpu"
        self._looked = True
        if self.hard_weight > 0:
            terms["hard"], weights["hard"] = self._hard(student.output, batch, look), self.hard_weight
        if self.soft_weight > 0:
            terms["soft"] = self._soft(student.output, teacher.output, batch)
            weights["soft"] = self.soft_weight
        errors, notes = self._compare(student, teacher, batch, look)
        for number, (error, weight) in enumerate(zip(errors, self.level_weights, strict=True), start=1):
            terms[f"freq{number}"], weights[f"freq{number}"] = error, self.beta * weight
        if "hard" in terms:
            added = sum(weights[name] * terms[name].detach() for name in terms if name.startswith("freq"))
            hard = self.hard_weight * terms["hard"].detach()
            notes["freq_to_hard"] = torch.where(hard > 0, added / hard, torch.zeros_like(hard))
        return Losses(terms, weights, notes)

    def top_k_temperatures(self) -> Sequence[float] | None:
        """Its own, of classes."""
        return (self.temperature,) if self.task.kind == "classes" else None

    def _hard(self, output: Tensor, batch: Mapping[str, Any], look: bool) -> Tensor:
        check_labelled(batch, self.hard_weight)
        if look and self.task.kind == "classes":
            check_labels(batch["targets"], output.shape[-1])
        return self.task.loss(output, batch)

    def _soft(self, student: Tensor, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        if student.shape != teacher.shape:
            raise RequestError(
                f"student outputs {tuple(student.shape)} and teacher outputs {tuple(teacher.shape)}; "
                "the soft term needs the same classes in the same order",
                fix="soft_weight = 0 learns from the layers, whatever the classes",
            )
        return soft_term(self.task, student, teacher, batch, self.temperature)

    def _compare(
        self, student: Record, teacher: Record, batch: Mapping[str, Any], look: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """L of each level, and notes on the teacher's side; in float32 or wider, autocast or not."""
        with torch.autocast(student[self.levels[0].student.layer].device.type, enabled=False):
            pairs = self._representations(student, teacher, batch)
            if look:
                for (_, target), level in zip(pairs, self.levels, strict=True):
                    check_target(target, level)
            count = denominator(batch, "samples", len(pairs[0][0]))
            errors = [feature_error(own, target, "mean", count=count) for own, target in pairs]
            targets = [target for _, target in pairs]
            notes = {"mean_target": torch.stack([target.mean() for target in targets])}
            shares = [share_at_zero(t, level.size) for t, level in zip(targets, self.levels, strict=True)]
            return errors, {**notes, "zero_share": torch.stack(shares)}

    def _representations(
        self, student: Record, teacher: Record, batch: Mapping[str, Any]
    ) -> list[tuple[Tensor, Tensor]]:
        """R_s and R_t of each level."""
        records = {"student": student, "teacher": teacher}
        taps = {tap.name: tap for level in self.levels for tap in (level.student, level.teacher)}
        for tap in taps.values():
            _check_padding(tap, records[tap.side][tap.layer], batch)
        maps = {name: tap.to_map(records[tap.side][tap.layer]) for name, tap in taps.items()}
        same_number(maps)
        found = []
        for level, project in zip(self.levels, self.projectors, strict=True):
            target = self.transform.of_teacher(maps[level.teacher.name], level.size)
            own = self.transform.of_student(project(maps[level.student.name]), level.size)
            found.append((own, target))
        return found

    def _pair(self, layouts: Mapping[str, Mapping[str, str]], example: Any) -> list[Level]:
        """The levels: layers in the order of taps, with layouts and blocks."""
        number, other = len(self.tapped["student"]), len(self.tapped["teacher"])
        if number != other:
            raise RequestError(
                f"{number} student taps and {other} teacher taps; a level has one of each",
                fix="as many layers of the student as of the teacher, from input to output",
            )
        taps, blocks = taps_of(self, layouts, example), self._blocks(number)
        return [Level.of(*each) for each in zip(taps["student"], taps["teacher"], blocks, strict=True)]

    def _blocks(self, number: int) -> list[int | None]:
        if self.block is None or isinstance(self.block, int):
            return [self.block] * number
        if len(self.block) != number:
            raise RequestError(
                f"block {list(self.block)} for {number} levels; needed one number, or one for each level"
            )
        return list(self.block)

    def _weights(self, given: Sequence[float] | None) -> list[float]:
        weights = [1.0] * len(self.levels) if given is None else list(given)
        if len(weights) != len(self.levels):
            raise RequestError(
                f"level_weights {weights} for {len(self.levels)} levels; needed one for each level"
            )
        for weight in weights:
            check_not_negative(level_weights=weight)
        return weights

    def _projector(self, level: Level) -> Projector:
        (own, *_), (other, *_) = level.student.sides, level.teacher.sides
        direct = self.transform.student_path == "direct" and self.transform.representation == "complex"
        return Projector(self.projector, own, other, 2 * other if direct else other)


def _check_padding(tap: Tap, value: Tensor, batch: Mapping[str, Any]) -> None:
    """Refuses sequences of unequal length: a frequency counts cycles over the whole, padding included."""
    if tap.layout.form != "line" or value.ndim != 3:
        return
    mask = valid_positions(batch, value, tap.layer)
    if mask is not None and not bool(mask.all()):
        raise RequestError(
            f"layer {tap.name!r} is a line of tokens of which some are padding; its frequencies mean nothing "
            "then",
            fix="sequences of one length",
        )
