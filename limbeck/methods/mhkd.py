"""MHKD: heads at several depths of student and teacher, compared by their outputs; gone when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, final, get_args

import torch
from torch import Tensor, nn

from limbeck._taps.proposals import few
from limbeck.errors import RequestError, nearest
from limbeck.losses import (
    check_finite,
    check_labels,
    kl_divergence,
    log_probabilities,
    reduce_samples,
)
from limbeck.method import Card, Method, Stage, Trained, Update
from limbeck.methods._agreement import check_choice
from limbeck.methods._branch_settings import check_settings, dropout_of, other_classes
from limbeck.methods._branches import (
    Branches,
    HeadInit,
    HeadKind,
    accuracies,
    drawn,
    number_of_outputs,
    ports_of,
    say_what_heads_cost,
)
from limbeck.methods._layouts import picture_of
from limbeck.methods._rows import soft_term
from limbeck.record import Losses, Record
from limbeck.task import Task, denominator
from limbeck.task.batches import device_of_inputs
from limbeck.teacher import Teacher

Target = Literal["branch", "logits"]
TeacherHeads = Literal["joint", "pretrained"]


@final
class MHKD(Method):
    """MHKD (Wang et al. 2020): multi-head knowledge distillation.

    With f_l, g_l the features of pair l of student and teacher, h_l and t_l a head on each, z and v the
    outputs, q = softmax(z / T) and p = softmax(v / T):

        L_l = head_soft_weight * T^2 KL(softmax(t_l(g_l) / T) || softmax(h_l(f_l) / T))
              + head_hard_weight * CE(h_l(f_l), y)
        L   = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * sum_l L_l
              [+ sum_l CE(t_l(g_l), y)]

    A head is convolution 3x3, batch norm, ReLU, twice, the mean over the map and `num_linear` Linear layers
    with ReLU between; so features of any width and size end in K outputs. The KL does not train t_l. The last
    sum belongs to `joint`. The paper's text was not available: settings are those of the first author's later
    code, and what it leaves open is an option.

    Terms: `hard`, `soft` (T^2 inside), by pair `head1_soft`, `head1_hard`, `teacher_head1_hard`. Notes, of
    classes: `head_accuracy` and `teacher_head_accuracy` [L], 0 to 1, over the labelled samples of a batch.
    The heads are dropped at the end; what they cost in training is in the run's `extra_parameters`.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network; its own layers never change.
        task: classification unless given.
        taps: as many layers of the student as of the teacher, a pair each (target `logits`: of the student
            alone); the last ones of stages, after their ReLU.
        example: one batch, which sizes the heads.
        hard_weight: gamma >= 0. 0 needs no labels for the main output.
        soft_weight: alpha >= 0. 0 does not read the teacher's output, whatever its classes.
        beta: >= 0, of the sum over the student's heads.
        head_soft_weight: >= 0, of the KL within each head's loss.
        head_hard_weight: >= 0, of the labels within each head's loss.
        temperature: T > 0, of all soft terms.
        width: of the student's heads, >= 1; `teacher_width`: of the teacher's, the same unless given.
        num_linear: Linear layers of a student's head, >= 1; `teacher_num_linear`: of a teacher's, likewise.
        head: `conv`; `linear` has no convolutions: vectors enter as they are, maps flattened, of tokens the
            mean over those that are valid.
        head_init: of Linear weights: torch's `default`, or `orthogonal`.
        layouts: for `conv`, how layers lie on the picture that are no maps [B, C, H, W], as
            {"student": {"blocks.3": "blc prefix=1"}}; read off shapes unless given.
        target: `branch`; `logits`: every student head learns from the teacher's output, there are no teacher
            heads, and their settings are not read.
        teacher_heads: `joint`: trained along, in train mode; `pretrained`: in a stage of their own before,
            on labels, then frozen in eval mode.
        head_epochs: of that stage, >= 1; half of the run's unless given.
        head_dropout: probability 0 to 1 that the loss of a student head is left out of a step, for all or
            each; where all would be, the first stays. Drawn from `seed` and the loop's `progress`, alike on
            every process.
        seed: of these draws; a part of the state. Unless given it is drawn at construction.
        stop_heads_after: epochs of the student's stage after which heads neither run nor train; never unless
            given.
        detach_target: false lets the KL train teacher heads too (`joint` of classes).
    """

    card = Card(
        slug="mhkd",
        title="MHKD (multi-head knowledge distillation)",
        paper="Wang, Lohit, Jones, Fu: Multi-head Knowledge Distillation for Model Compression, "
        "arXiv 2012.02911, 2020",
        equations=(
            "L = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * sum_l L_l",
            "L_l = head_soft_weight * T^2 KL(t_l || h_l) + head_hard_weight * CE(h_l, y), t_l detached",
            "joint: L + sum_l CE(t_l, y); pretrained: sum_l CE(t_l, y) in a stage of its own",
        ),
        tasks=("classes", "labels", "values"),
        needs=("layers: maps or tokens", "labels, for the heads too"),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "hard_weight": ">= 0, gamma, weight of the labels; not known; 0.1",
            "soft_weight": ">= 0, alpha, weight of the teacher's outputs; not known; 0.9",
            "beta": ">= 0, weight of the sum over heads; not known; 0.5",
            "head_soft_weight": ">= 0, weight of the KL within a head's loss; 0.9",
            "head_hard_weight": ">= 0, weight of the labels within a head's loss; 0.1",
            "temperature": "T > 0 of all soft terms; 4",
            "width": ">= 1, width of the student's heads; 256",
            "teacher_width": ">= 1, width of the teacher's heads; as width",
            "num_linear": ">= 1, Linear layers of a student's head; 2",
            "teacher_num_linear": ">= 1, Linear layers of a teacher's head; as num_linear",
            "head": "conv or linear; conv",
            "head_init": "default or orthogonal, of Linear weights; default",
            "layouts": "of layers that are not [B, C, H, W], by network; read off shapes",
            "target": "branch or logits; branch",
            "teacher_heads": "joint or pretrained; not known; joint",
            "head_epochs": "pretrained alone: >= 1; half of the run's",
            "head_dropout": "0 to 1, for all heads or each; 0",
            "seed": "of head_dropout; from the recipe's",
            "stop_heads_after": "epochs >= 1; never",
            "detach_target": "the KL does not train teacher heads; yes",
        },
        couples_batch=True,
        taps=True,
        minimum={"soft": 0.0},
        consulted="MingSun-Tse/Good-DA-in-KD, "
        "aryanasadianuoit/Distilling-Knowledge-via-Intermediate-Classifiers",
        inferred=(
            "all but these: classifiers at intermediate layers of both networks, whose outputs are compared. "
            "The paper's text was not available; the rest is that of public code",
            "hard_weight, soft_weight and beta; two Linear layers; every stage has a head",
            "teacher_heads joint (option pretrained, with half of the epochs); targets are detached (option)",
            "tokens on their grid as maps; heads without convolutions for vectors and for means of tokens",
            "tasks of labels and values: their own divergence in place of the KL",
            "head_dropout never drops the labels' term of teacher heads; stop_heads_after counts from 1",
            "orthogonal weights have gain 1",
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
        hard_weight: float = 0.1,
        soft_weight: float = 0.9,
        beta: float = 0.5,
        head_soft_weight: float = 0.9,
        head_hard_weight: float = 0.1,
        temperature: float = 4.0,
        width: int = 256,
        teacher_width: int | None = None,
        num_linear: int = 2,
        teacher_num_linear: int | None = None,
        head: HeadKind = "conv",
        head_init: HeadInit = "default",
        layouts: Mapping[str, Mapping[str, str]] | None = None,
        target: Target = "branch",
        teacher_heads: TeacherHeads = "joint",
        head_epochs: int | None = None,
        head_dropout: float | Sequence[float] = 0.0,
        seed: int | None = None,
        stop_heads_after: int | None = None,
        detach_target: bool = True,
    ) -> None:
        check_choice("target", target, get_args(Target))
        if head == "linear":  # no batch norms
            self.card = replace(self.card, couples_batch=False)
        reads = ("student", "teacher") if target == "branch" else ("student",)
        super().__init__(student, teacher, task=task, taps=taps, example=example, reads=reads)
        self.hard_weight, self.soft_weight, self.beta = hard_weight, soft_weight, beta
        self.head_soft_weight, self.head_hard_weight = head_soft_weight, head_hard_weight
        self.temperature, self.head, self.head_init = temperature, head, head_init
        self.width, self.teacher_width = width, width if teacher_width is None else teacher_width
        self.num_linear = num_linear
        self.teacher_num_linear = num_linear if teacher_num_linear is None else teacher_num_linear
        self.layouts, self.target, self.teacher_heads = layouts, target, teacher_heads
        self.head_epochs, self.head_dropout, self.seed = head_epochs, head_dropout, seed
        self.stop_heads_after, self.detach_target = stop_heads_after, detach_target
        self.num_heads = len(self.tapped["student"])
        check_settings(self)
        self._dropout = dropout_of(head_dropout, self.num_heads)
        batch = self.task.batch(example)
        self.outputs = self._number_of_outputs(few(batch, 2))
        self.branches = self._branches("student", batch)
        self.teacher_branches = self._branches("teacher", batch) if target == "branch" else None
        self.dropout_seed: Tensor
        self.register_buffer(
            "dropout_seed", torch.randint(1 << 31, ()) if seed is None else torch.tensor(seed)
        )
        self._looked: set[str] = set()
        say_what_heads_cost(self.student_taps.model, self.branches, self.teacher_branches)

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; the teacher stops after its last tapped layer where its output is not read.

        Args:
            batch: in any form that the task takes.
            update: `student`, or `teacher_heads` in the first stage of `pretrained`.
        """
        batch = self.task.batch(batch)
        assert self.teacher is not None
        known = [each.name for stage in self.stages() for each in stage.updates]
        if update not in known:
            raise RequestError(
                f"there is no update {update!r}; this mhkd has {', '.join(known)}",
                near=nearest(update, known),
                fix='teacher_heads = "pretrained" has one of the teacher heads',
            )
        if update == "teacher_heads":
            return self._teach(self.teacher(batch, output=False), batch)
        reads = self.soft_weight > 0 or self.target == "logits"
        return self.losses(self.student_taps(batch), self.teacher(batch, output=reads), batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The hard and the soft term, those of the student's heads, and in `joint` of the teacher's.

        Args:
            student: the output, and features at the tapped layers.
            teacher: an output of the same shape where it is read, and features.
            batch: normal form; `targets` where there are labels, a mask where sequences are padded.
        """
        look = self._check("student", student, teacher, batch)
        terms: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        if self.hard_weight > 0:
            terms["hard"], weights["hard"] = self._hard(student.output, batch), self.hard_weight
        if self.soft_weight > 0:
            terms["soft"] = self._soft(student.output, teacher.output, batch)
            weights["soft"] = self.soft_weight
        if self.stop_heads_after is not None and self.epoch > self.stop_heads_after:
            return Losses(terms, weights)
        own = self.branches(student.layers, batch, look=look)
        others = self._targets(teacher, batch, look)
        for number, (mine, theirs, kept) in enumerate(zip(own, others, self._kept(), strict=True), start=1):
            beta, soft, hard = self.beta if kept else 0.0, f"head{number}_soft", f"head{number}_hard"
            if self.head_soft_weight > 0:
                terms[soft] = self._head_soft(mine, theirs, batch)
                weights[soft] = beta * self.head_soft_weight
            if self.head_hard_weight > 0:
                terms[hard], weights[hard] = self._hard(mine, batch), beta * self.head_hard_weight
        notes = accuracies("head", own, batch, self.task)
        if self.teacher_branches is not None:
            notes |= accuracies("teacher_head", others, batch, self.task)
        if self.is_joint:
            labels = self._of_teacher_heads(others, batch)
            terms, weights = terms | labels, weights | dict.fromkeys(labels, 1.0)
        return Losses(terms, weights, notes)

    def stages(self) -> Iterable[Stage]:
        """One stage; `pretrained` has one of the teacher heads before it, each with its own optimizer."""
        groups: dict[str, Trained] = {"student": [cast(nn.Module, self.student)], "heads": self.branches}
        train = Stage("train", [Update("student", groups)])
        if self.teacher_branches is None:
            return [train]
        if self.is_joint:
            groups["teacher_heads"] = self.teacher_branches
            return [train]
        first = Update("teacher_heads", {"teacher_heads": self.teacher_branches})
        return [Stage("heads", [first], epochs=self.head_epochs, data="labelled", scored=False), train]

    def top_k_temperatures(self) -> Sequence[float] | None:
        """Its own, of classes."""
        return (self.temperature,) if self.task.kind == "classes" else None

    @property
    def is_joint(self) -> bool:
        """Whether teacher heads are trained along with the student."""
        return self.target == "branch" and self.teacher_heads == "joint"

    def _teach(self, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The first stage of `pretrained`."""
        assert self.teacher_branches is not None
        look = self._check("teacher_heads", Record(None), teacher, batch)
        outputs = self.teacher_branches(teacher.layers, batch, look=look)
        if self.teacher_branches.training:
            self.teacher_branches.trained.fill_(True)
        terms = self._of_teacher_heads(outputs, batch)
        notes = accuracies("teacher_head", outputs, batch, self.task)
        return Losses(terms, dict.fromkeys(terms, 1.0), notes)

    def _of_teacher_heads(self, outputs: Sequence[Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {f"teacher_head{n}_hard": self._hard(each, batch) for n, each in enumerate(outputs, start=1)}

    def _targets(self, teacher: Record, batch: Mapping[str, Any], look: bool) -> Sequence[Any]:
        """What each student head learns from: the outputs of teacher heads, or the teacher's own."""
        branches = self.teacher_branches
        if branches is None:
            return [teacher.output] * self.num_heads
        if self.is_joint:
            return cast(list[Tensor], branches(teacher.layers, batch, look=look))
        if look:
            self._check_trained(branches)
        if branches.training:  # in a loop without `enter`
            branches.eval()
        with torch.no_grad():
            return cast(list[Tensor], branches(teacher.layers, batch, look=look))

    def _kept(self) -> list[bool]:
        """Which student heads count in this step; the same in all its micro-batches and processes."""
        if not self.branches.training or not any(self._dropout):
            return [True] * self.num_heads
        return drawn(self._dropout, int(self.dropout_seed), self.progress)  # reads a number back

    def _hard(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if batch.get("targets") is None:
            raise RequestError(
                "mhkd trains on labels, and the batch has no targets",
                fix='hard_weight = 0, head_hard_weight = 0 and target = "logits" need none',
            )
        return self.task.loss(output, batch)

    def _soft(self, student: Tensor, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        if student.shape != teacher.shape:
            raise other_classes(student.shape, teacher.shape)
        return soft_term(self.task, student, teacher, batch, self.temperature)

    def _head_soft(self, student: Tensor, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        if self.detach_target:
            return self._soft(student, teacher, batch)
        pair = (log_probabilities(each, self.temperature) for each in (teacher, student))
        count = denominator(batch, "samples", len(student))
        return reduce_samples(self.temperature**2 * kl_divergence(*pair), count=count)

    def _check(self, update: str, student: Record, teacher: Record, batch: Mapping[str, Any]) -> bool:
        """Looks at values in every step on the CPU, else at the first of an update: it stalls an accelerator.

        Returns:
            Whether it looked.
        """
        first = update not in self._looked
        self._looked.add(update)
        if not first and device_of_inputs({**teacher.layers, **student.layers}).type != "cpu":
            return False
        for path in self.tapped["teacher"]:
            check_finite(teacher[path], f"teacher features at {path!r}")
        for path in student.layers if first else ():
            check_finite(student[path], f"student features at {path!r}", "look at its weights and inputs")
        if self.task.kind == "classes" and batch.get("targets") is not None:
            check_labels(batch["targets"], self.outputs)
        return True

    def _check_trained(self, branches: Branches) -> None:
        """Refuses frozen heads with the weights that they were made with."""
        if not bool(branches.trained):
            raise RequestError(
                "the teacher heads are not trained: their stage took no step",
                fix="more epochs, or head_epochs; in your own loop all of method.stages(), or "
                "method.teacher_branches.load_state_dict(...)",
            )

    # -- at construction -----------------------------------------------------------------------------------

    def _number_of_outputs(self, batch: Mapping[str, Any]) -> int:
        """K; refuses a teacher of other classes where its output is read."""
        assert self.student is not None and self.teacher is not None
        outputs = number_of_outputs(self.student, batch, self.task)
        if self.soft_weight > 0 or self.target == "logits":
            others = number_of_outputs(self.teacher.model, batch, self.task)
            if others != outputs:
                raise other_classes((outputs,), (others,))
        return outputs

    def _branches(self, side: str, batch: Mapping[str, Any]) -> Branches:
        """The heads of one network, where the student is, in its precision, at least float32."""
        declared, of_student = (self.layouts or {}).get(side, {}), side == "student"
        ports = ports_of(side, self.shapes[side], self.tapped[side], declared, picture_of(batch), self.head)
        width, number = (
            (self.width, self.num_linear) if of_student else (self.teacher_width, self.teacher_num_linear)
        )
        made = Branches(ports, width, number, self.outputs, self.head_init)
        values = self.student_taps.model.parameters()
        like = next(value for value in values if value.is_floating_point())
        return made.to(like.device, torch.promote_types(like.dtype, torch.float32))
