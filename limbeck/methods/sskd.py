"""SSKD: the backbone learns the teacher's features stage by stage, then the head learns the labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from limbeck._taps.proposals import few
from limbeck.adaptors import adaptor, same_size
from limbeck.errors import RequestError, nearest
from limbeck.losses import check_labels, check_not_negative, feature_error
from limbeck.method import Card, Method, Stage, Trained, Update
from limbeck.methods._agreement import check_choice
from limbeck.methods._phases import Phase, Variant, epochs_of, phases_of
from limbeck.methods._sequences import valid_positions
from limbeck.methods._split import Unit, check_order, head_of, split
from limbeck.record import Losses, Record
from limbeck.taps import Taps
from limbeck.task import Task, as_model_type, denominator, num_samples
from limbeck.teacher import Teacher

HeadInit = Literal["fresh", "teacher", "keep"]


@final
class SSKD(Method):
    """SSKD (Gao et al. 2018): stage-by-stage knowledge distillation. Not the later self-supervision KD.

    With s_i, t_i the features of stage i of student and teacher, r_i the identity where their widths agree
    and a 1x1 convolution (Linear for [B, D] and [B, L, D]) otherwise:

        phase i = 1..M:   L_i = mean (r_i(s_i) - t_i)^2          trains stage i and r_i alone, without labels
        head phase:       L = task loss                          trains the head alone, initialised afresh

    What comes before in the student is frozen, its batch norms in eval mode; what comes after is not run. A
    stage is everything that the student executes after one tap, up to the next; the stem belongs to stage 1,
    all after the last tap to the head. No phase mixes two losses, so there is no weight to choose.

    The phases are the stages of `stages()`, each with one update of the name of its phase (`joint`: student):
    `method.enter(stage)`, then `method(batch, update=stage.updates[0].name)`. `stage.begin(data)` of the
    head phase initialises the head. Terms: `stage1`.. `stageM`, and `hard` with labels. With padded sequences
    the mean is over the valid positions of each micro-batch.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network.
        task: classification unless given.
        taps: the last layer of each stage of both networks, from input to output, after its ReLU.
        example: one batch, which sizes r_i and shows what is executed when.
        variant: `sskd`; `last_stage`, one backbone phase for the last features alone; `all_at_once`, one for
            the sum of all L_i; `joint`, task loss + joint_weight * sum_i L_i in a single phase.
        joint_weight: of `joint` alone, >= 0; 1 unless given.
        phase_epochs: epochs of each of the M + 1 phases of `sskd`, a number or a list; a merged phase gets
            the sum. Otherwise equal shares of the run, what rounding leaves to the head; 0 skips one.
        freeze_previous: false trains stages 1 to i in phase i.
        reduction: `mean` over all values, or `batchmean`: sum over a sample's values, mean over samples.
        adaptor_bias: of r_i.
        pool: averages the larger of two maps to the size of the smaller; otherwise unequal sizes are refused.
        head_init: of the head phase: `fresh`, `teacher` (a copy of its head, of equal shapes), or `keep`.
        seed: of the fresh head; unless given it is drawn at construction from torch's generator, so that of a
            recipe follows from the recipe's. It is a part of the state.
        finetune: epochs after the head phase in which all is trained with labels; to be reported apart.
        finetune_rate: factor on the learning rates of these epochs.
        stage_modules: names of the modules (or parameters) of each stage, where the order of execution leaves
            them open; what is shared by stages is listed once.
        head_modules: names of those of the head.
    """

    card = Card(
        slug="sskd",
        title="SSKD (stage-by-stage knowledge distillation)",
        paper="Gao, Shen, Li, Yan, Wan, Lin, Loy, Tang: An Embarrassingly Simple Approach for Knowledge "
        "Distillation, arXiv 1812.01819, 2018",
        equations=(
            "phase i: L_i = 1/(B*C*H*W) * sum (r_i(s_i) - t_i)^2; trains stage i and r_i, no labels",
            "head phase: L = task loss; trains the head",
            "all_at_once: L = sum_i L_i; joint: L = task loss + joint_weight * sum_i L_i",
        ),
        tasks=("classes", "labels", "values", "tokens", "boxes"),
        needs=("layers of equal height and width", "labels in the head phase alone"),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "variant": "sskd, last_stage, all_at_once or joint; sskd",
            "joint_weight": "joint alone: >= 0; no weight in the paper; 1",
            "phase_epochs": "a number, or one for each of the M + 1 phases; not known; equal shares",
            "freeze_previous": "earlier stages are frozen; yes",
            "reduction": "mean or batchmean; not known; mean",
            "adaptor_bias": "bias of r_i; yes",
            "pool": "averages the larger of two maps; no",
            "head_init": "fresh, teacher or keep; fresh",
            "seed": "of the fresh head; from the recipe's",
            "finetune": "epochs with labels at the end; not in the paper; 0",
            "finetune_rate": "> 0, factor on the learning rates of finetune; 0.01",
            "stage_modules": "names by stage; by order of execution",
            "head_modules": "names; what is executed after the last tap",
        },
        taps=True,
        minimum={"stage1": 0.0},
        consulted="none: no public code was found, and the full text of the paper was not available",
        inferred=(
            "all but these: features first, stage by stage, by mimicking, as they are; then the head alone",
            "squared error, mean over values; r_i without norm and activation, only where widths differ",
            "earlier stages frozen with their batch statistics; a fresh optimizer and schedule by phase",
            "the head is initialised afresh; its phase gets the epochs that rounding leaves",
            "the variants, fine-tuning, and the head of the teacher",
            "sequences: mean over valid positions",
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
        variant: Variant = "sskd",
        joint_weight: float | None = None,
        phase_epochs: int | Sequence[int] | None = None,
        freeze_previous: bool = True,
        reduction: Literal["mean", "batchmean"] = "mean",
        adaptor_bias: bool = True,
        pool: bool = False,
        head_init: HeadInit = "fresh",
        seed: int | None = None,
        finetune: int = 0,
        finetune_rate: float = 0.01,
        stage_modules: Sequence[Sequence[str]] | None = None,
        head_modules: Sequence[str] | None = None,
    ) -> None:
        check_choice("variant", variant, get_args(Variant))
        check_choice("reduction", reduction, ("mean", "batchmean"))
        check_choice("head_init", head_init, get_args(HeadInit))
        _check_numbers(variant, joint_weight, finetune, finetune_rate)
        if head_init == "teacher" and variant == "joint":
            raise RequestError(
                'head_init "teacher" with the variant joint, which has no head phase',
                fix='head_init = "fresh"',
            )
        super().__init__(student, teacher, task=task, taps=taps, example=example)
        assert self.student is not None and self.teacher is not None
        self.variant, self.joint_weight = variant, joint_weight
        self.phase_epochs, self.freeze_previous = phase_epochs, freeze_previous
        self.reduction, self.adaptor_bias, self.pool = reduction, adaptor_bias, pool
        self.head_init, self.seed = head_init, seed
        self.finetune, self.finetune_rate = finetune, finetune_rate
        self.stage_modules, self.head_modules = stage_modules, head_modules
        self.num_stages = len(self.tapped["student"])
        self._looked = False
        batch = few(self.task.batch(example), 2)
        self._check_taps(batch)
        self.adaptors = nn.ModuleList(self._adaptor(number) for number in range(self.num_stages))
        self.split = split(self.student_taps, batch, stage_modules, head_modules)
        phases = phases_of(variant, self.num_stages, freeze_previous=freeze_previous, finetune=finetune > 0)
        self.phases = {phase.update: phase for phase in phases}
        self._epochs = epochs_of(self.phases, self.num_stages, phase_epochs)
        self._check_parts()
        self._donors = self._teacher_head(batch) if head_init == "teacher" else []
        self._readers = {update: self._reader(phase, batch) for update, phase in self.phases.items()}
        self.head_seed: Tensor
        self.register_buffer("head_seed", torch.randint(1 << 31, ()) if seed is None else torch.tensor(seed))

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """The loss of one phase; both networks stop after the last layer that it reads.

        Args:
            batch: in any form that the task takes; targets are read by phases with labels alone.
            update: the name of the phase's update.
        """
        if update not in self.phases:
            raise RequestError(
                f"there is no update {update!r}; sskd trains in phases: {', '.join(self.phases)}",
                near=nearest(update, self.phases),
                fix="for stage in method.stages(): method.enter(stage); "
                "method(batch, update=stage.updates[0].name)",
            )
        phase, batch = self.phases[update], self.task.batch(batch)
        self._check_norms(phase, num_samples(batch))
        taps, teacher = self._readers[update]
        target = teacher(batch, output=False) if phase.mimics else Record(None)
        return self.losses(taps(batch, output=self.num_stages in phase.trains), target, batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The terms of what the student's record holds: `stage1`.. for its layers, `hard` for its output.

        Args:
            student: features [B, C, H, W], [B, L, D] or [B, D]; an output where labels are learned.
            teacher: features of the same stages.
            batch: normal form; targets for `hard`, a mask where sequences are padded.
        """
        terms: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        if student.output is not None:
            terms["hard"], weights["hard"] = self._hard(student.output, batch), 1.0
        pairs = zip(self.tapped["student"], self.tapped["teacher"], strict=True)
        for number, (own, other) in enumerate(pairs):
            if own in student.layers:
                name = f"stage{number + 1}"
                terms[name] = self._error(number, student[own], teacher[other], batch)
                weights[name] = 1.0 if self.joint_weight is None else self.joint_weight
        return Losses(terms, weights)

    def stages(self) -> Iterable[Stage]:
        """The phases in order, each with fresh optimizers; those with labels are scored."""
        return [self._stage(phase) for phase in self.phases.values()]

    def _stage(self, phase: Phase) -> Stage:
        head = self.num_stages
        labels, fine = head in phase.trains, phase.name == "finetune"
        own = {id(part) for part in self.split.of([head])}
        groups: dict[str, Trained] = {
            "student": [part for part in self.split.of(phase.trains) if id(part) not in own],
            "adaptors": [self.adaptors[i] for i in phase.mimics],
            "head": self.split.of([head]) if labels else [],
        }
        return Stage(
            phase.name,
            [Update(phase.update, groups, rate=self.finetune_rate if fine else 1.0)],
            share=phase.replaces,
            epochs=self.finetune if fine else self._epochs.get(phase.update),
            data="labelled" if labels and not phase.mimics else "train",
            begin=self._new_head if phase.name == "head" and self.head_init != "keep" else None,
            scored=labels,
        )

    def _reader(self, phase: Phase, batch: Mapping[str, Any]) -> tuple[Taps, Teacher]:
        """Both networks, read at the layers of a phase alone; checked here, not at the first step."""
        assert self.student is not None and self.teacher is not None
        own, others = ([self.tapped[side][i] for i in phase.mimics] for side in ("student", "teacher"))
        taps = Taps(self.student, own, task=self.task, trainable=True)
        teacher = self.teacher.reading(others, task=self.task)
        if phase.mimics:
            taps.dry(batch)
            teacher.taps.dry(batch)
        return taps, teacher

    def _error(self, number: int, own: Tensor, other: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """L_i of one stage, a scalar."""
        self._check_pair(number, own.shape, other.shape)
        if self.pool:
            own, other = same_size(own, other)
        module = self.adaptors[number]
        adapted = module(as_model_type(module, own))
        layer = self.tapped["student"][number]
        mask = valid_positions(batch, own, layer) if own.ndim == 3 else None
        masked_mean = mask is not None and self.reduction == "mean"
        count = None if masked_mean else denominator(batch, "samples", len(own))
        return feature_error(adapted, other, self.reduction, mask=mask, count=count)

    def _hard(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        targets = batch.get("targets")
        first, self._looked = not self._looked, True
        if isinstance(targets, Tensor) and (
            first or targets.device.type == "cpu"
        ):  # reading back stalls others
            if self.task.kind == "classes":
                check_labels(targets, output.shape[-1])
            elif self.task.kind == "tokens":
                check_labels(targets[targets != -100], output.shape[-1])
        return self.task.loss(output, batch)

    def _new_head(self, data: Any) -> Any:
        """Initialises the head on entry into its phase; the data stay as they are."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
            torch.manual_seed(int(self.head_seed))
            for unit in self.split.holders(self.num_stages):
                for reset in unit.resets or () if self.head_init == "fresh" else ():
                    reset()
            for unit, donor in self._donors:
                for own, other in zip(unit.tensors(), donor.tensors(), strict=True):
                    own.copy_(other)
        return data

    def _teacher_head(self, batch: Mapping[str, Any]) -> list[tuple[Unit, Unit]]:
        """The parts of the student's head, each with the teacher's of the same shapes."""
        assert self.teacher is not None
        own, others = self.split.holders(self.num_stages), head_of(self.teacher.taps, batch)
        shapes = [[[tuple(t.shape) for t in unit.tensors()] for unit in units] for units in (own, others)]
        if shapes[0] != shapes[1]:
            raise RequestError(
                f"the heads have unequal shapes: the student's {shapes[0]}, the teacher's {shapes[1]}",
                fix='head_init = "fresh"',
            )
        return list(zip(own, others, strict=True))

    def _adaptor(self, number: int) -> nn.Module:
        shapes = [self.shapes[side][self.tapped[side][number]] for side in ("student", "teacher")]
        self._check_pair(number, *shapes)
        return adaptor(*shapes, bias=self.adaptor_bias)

    def _check_taps(self, batch: Mapping[str, Any]) -> None:
        assert self.teacher is not None
        own, others = self.tapped["student"], self.tapped["teacher"]
        if len(own) != len(others):
            raise RequestError(
                f"{len(own)} student taps and {len(others)} teacher taps; needed one of each a stage",
                fix="pair them: the last layer of each stage, from input to output",
            )
        for side, paths in self.tapped.items():
            double = {path for path in paths if paths.count(path) > 1}
            if double:
                raise RequestError(
                    f"{side} layer {min(double)!r} ends two stages", fix="name each layer once"
                )
        check_order(self.teacher.taps, batch, "teacher")

    def _check_pair(self, number: int, own: Sequence[int], other: Sequence[int]) -> None:
        """Refuses features that cannot be compared, naming the stage."""
        axes = slice(1, 2) if len(own) == 3 else slice(2, None)
        if len(own) == len(other) and own[axes] == other[axes]:
            return
        if len(own) != len(other):
            what, fix = "of different rank", "pair layers of like form"
        elif len(own) == 3:
            what, fix = "with different numbers of tokens", "pair layers with equally many tokens"
        elif self.pool:
            return
        else:
            what, fix = "of different height and width", "pair layers of one size, or pool = true"
        raise RequestError(
            f"stage {number + 1} has features {what}: student layer {self.tapped['student'][number]!r} gives "
            f"{tuple(own)}, teacher layer {self.tapped['teacher'][number]!r} {tuple(other)}",
            fix=fix,
        )

    def _check_parts(self) -> None:
        """Refuses what has no parameters, or cannot be made afresh; warns of what is never trained."""
        names = [f"stage {i + 1} (up to {path!r})" for i, path in enumerate(self.tapped["student"])]
        for stage, name in enumerate([*names, f"the head (after {self.tapped['student'][-1]!r})"]):
            if not any(unit.parameters for unit in self.split.holders(stage)):
                raise RequestError(
                    f"{name} has no parameter to train", fix="other taps, or stage_modules and head_modules"
                )
        for unit in self.split.holders(self.num_stages):
            if (
                "head" in self.phases
                and self.head_init == "fresh"
                and unit.parameters
                and unit.resets is None
            ):
                raise RequestError(
                    f"{unit.name} of the head has parameters without a reset_parameters to make them afresh",
                    fix='head_init = "keep"',
                )
        if self.split.idle:
            warnings.warn(
                f"{', '.join(self.split.idle)} of the student runs neither in a stage nor in the head: "
                "it is never trained",
                stacklevel=3,
            )

    def _check_norms(self, phase: Phase, samples: int) -> None:
        for norm in self.split.norms:
            if norm.module.training and samples * norm.positions == 1 and norm.stage in phase.trains:
                raise RequestError(
                    f"phase {phase.name}: batch norm {norm.name!r} gets one value a channel",
                    fix="a larger batch, or drop_last = True",
                )


def _check_numbers(variant: str, joint_weight: float | None, finetune: int, finetune_rate: float) -> None:
    if joint_weight is not None and variant != "joint":
        raise RequestError(
            f"joint_weight {joint_weight} with the variant {variant}, which has no weight",
            fix='variant = "joint", or leave joint_weight out',
        )
    if joint_weight is not None:
        check_not_negative(joint_weight=joint_weight)
    if finetune < 0 or not 0 < finetune_rate < float("inf"):
        raise RequestError(
            f"finetune {finetune} and finetune_rate {finetune_rate}; needed epochs >= 0 and a factor above 0"
        )
