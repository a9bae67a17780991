"""SimKD: the student's features are trained to fit the teacher's classifier, which is deployed with them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast, final, get_args

import torch
from torch import Tensor, nn

from limbeck._taps.survey import beside, undisturbed
from limbeck.errors import RequestError
from limbeck.losses import check_finite, check_not_negative, check_temperature, feature_error
from limbeck.method import Card, Method, Stage, Trained, Update, copy_of
from limbeck.methods import _reuse
from limbeck.methods._agreement import check_choice
from limbeck.methods._classifier import Head
from limbeck.methods._composed import Composed, Tail, TailPlan
from limbeck.methods._layouts import Layout, layouts_of, picture_of
from limbeck.methods._rows import soft_term
from limbeck.methods._split import split
from limbeck.record import Losses, Record
from limbeck.taps import untapped
from limbeck.task import Task, denominator
from limbeck.teacher import Teacher

Variant = Literal["simkd", "joint", "sequential"]
JointTarget = Literal["labels", "teacher"]


@final
class SimKD(Method):
    """SimKD (Chen et al. 2022): knowledge distillation with the reused teacher classifier.

    With F_s [B, C_s, H_s, W_s] the student's last map, F_t [B, C_t, H_t, W_t] the teacher's map before its
    global average, g_t the teacher's classifier, P the projector, both maps averaged to the smaller size:

        L = 1/(B C_t h w) * sum (P(F_s) - F_t)^2             deployed: g_t(mean_hw P(F_s))

    No labels, no logits, no temperature, no weight. P is 1x1 convolution to c = floor(C_t / factor), 3x3,
    1x1 to C_t, each without bias and with batch norm and ReLU. The student's own layers after F_s are
    neither trained nor deployed; P and g_t stay, which is the price: see `deployable`. Term: `simkd`; of
    several teachers `simkd_1`, `simkd_2`, ...; `hard` or `soft` of the other variants.

    The layers are found by a dry batch: of the teacher the map whose mean enters its last Linear (the vector
    itself, where a class token or no picture is classified), of the student the last block. The weights of
    g_t are copied at construction and again when training begins.

    Args:
        student: trains up to F_s.
        teacher: the trained network, which ends in one Linear; `teachers`: several, in place of it, each
            with a projector and a classifier; losses are summed, outputs averaged.
        task: classification unless given.
        taps: one layer of each network: F_s, and F_t (of several teachers one each, in their order).
        example: one batch, which shows sizes and the teacher's classifier.
        factor: of the projector, 1 to C_t; 2 in the paper, which also reports 4 and 8.
        variant: `simkd`; `joint`: the student keeps a classifier on mean_hw F_s and is deployed with it,
            L + joint_weight * (hard or soft term); `sequential`: then a fresh Linear on mean_hw P(F_s) in
            place of g_t, trained on labels with all else frozen.
        joint_weight: of `joint`, >= 0; not in the paper; 1.
        joint_target: of `joint`: `labels`, or `teacher` (T^2 KL on g_t(mean F_t)).
        temperature: of joint_target `teacher`, > 0.
        reuse_from: the first module of the teacher that is reused; F_t is then what enters it, and the rest
            of the teacher follows P, frozen and in eval mode, as in the paper's SimKD+ and SimKD++.
        depthwise: the 3x3 convolution of P works in every channel by itself.
        final_relu: the last ReLU of P; unless given, on where the teacher's features are never negative.
        layouts: of layers that are no maps [B, C, H, W], `{"student": {layer: "blc prefix=1"}}`; read off
            shapes unless given.
    """

    card = Card(
        slug="simkd",
        title="SimKD (reused teacher classifier)",
        paper="Chen, Mei, Zhang, Wang, Feng, Chen: Knowledge Distillation with the Reused Teacher "
        "Classifier, CVPR 2022, arXiv 2203.14001",
        equations=(
            "L = 1/(B*C_t*h*w) * sum (P(F_s) - F_t)^2, the larger map averaged to h x w first",
            "deployed: logits = g_t(mean_hw P(F_s)), g_t the teacher's classifier, frozen",
            "joint: L + joint_weight * CE(g_s(mean_hw F_s), y)",
        ),
        tasks=("classes", "labels", "values"),
        needs=("a teacher that ends in one Linear", "layers", "labels in joint and sequential alone"),
        teacher="outputs",
        deployed="student encoder, projector and the teacher's classifier",
        hyperparameters={
            "factor": "1 to the teacher's channels, which it divides within the projector; 2 (4, 8)",
            "variant": "simkd, joint or sequential; simkd",
            "joint_weight": "joint alone: >= 0; not in the paper; 1",
            "joint_target": "joint alone: labels or teacher; labels",
            "temperature": "joint_target teacher alone: T > 0; 4",
            "reuse_from": "the first reused module of the teacher; its classifier alone",
            "depthwise": "depthwise 3x3 convolution in the projector; no",
            "final_relu": "the projector's last ReLU; yes, unless the teacher's features are negative",
            "layouts": "of layers that are not [B, C, H, W], by network; read off shapes",
        },
        couples_batch=True,
        taps=True,
        consulted="DefangChen/SimKD",
        inferred=(
            "both sides of a map are compared; wider but lower maps are refused, the code compares heights",
            "the reused layers of reuse_from (SimKD+, SimKD++) take no part in the loss",
            "joint: its weight, and that its own classifier is deployed; sequential: all of it",
            "several teachers: a projector each, losses summed, outputs averaged",
            "vectors as maps of one cell, tokens on their grid without the class token",
            "no last ReLU where the teacher's features are negative",
            "teacher rows in the order of the student's classes; a classifier without bias",
        ),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Teacher | None = None,
        *,
        teachers: Sequence[nn.Module | Teacher] | None = None,
        task: Task | None = None,
        taps: Mapping[str, Sequence[str]] | None = None,
        example: Any = None,
        factor: int = 2,
        variant: Variant = "simkd",
        joint_weight: float = 1.0,
        joint_target: JointTarget = "labels",
        temperature: float = 4.0,
        reuse_from: str | None = None,
        depthwise: bool = False,
        final_relu: bool | None = None,
        layouts: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        if (teacher is None) == (teachers is None):
            raise RequestError("simkd learns from `teacher` or from several `teachers`; give one of the two")
        check_choice("variant", variant, get_args(Variant))
        check_choice("joint_target", joint_target, get_args(JointTarget))
        check_temperature(temperature)
        if factor < 1:
            raise RequestError(f"factor {factor}; needed 1 to the channels of the teacher", fix="factor = 2")
        check_not_negative(joint_weight=joint_weight)
        given = [teacher] if teacher is not None else list(teachers or ())
        sources = [each if isinstance(each, Teacher) else Teacher(each, task=task) for each in given]
        found = _reuse.find(student, sources, task, taps, example, reuse_from)
        read = {"student": [found.cut], "teacher": [found.heads[0].path]}
        super().__init__(student, sources[0], task=task, taps=read, example=example)
        self.factor, self.variant, self.reuse_from = factor, variant, reuse_from
        self.joint_weight, self.joint_target, self.temperature = joint_weight, joint_target, temperature
        self.depthwise, self.final_relu, self.layouts = depthwise, final_relu, layouts
        self.cut, self.heads, self.outputs = found.cut, found.heads, found.outputs
        self.tapped["teacher"] = [head.path for head in self.heads]  # of several teachers one each
        self._samples = found.samples
        assert self.teacher is not None
        self.teachers = [
            self.teacher,
            *(each.reading([head.path]) for each, head in zip(sources[1:], self.heads[1:], strict=True)),
        ]
        self._place_tails(layouts or {})
        parts = split(self.student_taps, self._samples)
        self._encoder = parts.of({0})
        self._unused = [unit.name for unit in parts.holders(1) if isinstance(unit.part, nn.Module)]
        self._looked = False
        self._copy()
        self._check_deployable()

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; both networks stop after the layer that is read.

        Args:
            batch: in any form that the task takes.
            update: `student`, or `classifier` in the second stage of `sequential`.
        """
        batch = self.task.batch(batch)
        if update == "classifier":
            with torch.no_grad():
                value = self.student_taps(batch, output=False)[self.cut]
            return self._classify(value, batch)
        named = zip(self._keys(), self.heads, self.teachers, strict=True)
        layers = {key: reader(batch, output=False)[head.path] for key, head, reader in named}
        return self.losses(self.student_taps(batch, output=False), Record(None, layers), batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The feature term of each teacher, and of `joint` its hard or soft term.

        Args:
            student: the value at the cut, as a map [B, C_s, H_s, W_s].
            teacher: the value at its layer, [B, C_t, H_t, W_t]; of several teachers `teacher1 PATH`, ...
            batch: normal form; `targets` in `joint` alone.
        """
        own = self._layout.to_map(student[self.cut], f"student {self.cut}")
        terms: dict[str, Tensor] = {}
        maps: list[Tensor] = []
        for number, key in enumerate(self._keys()):
            target = self._layouts[number].to_map(teacher[key], f"teacher {key}")
            target = self.heads[number].target(target)
            self._check_target(target, number, len(own))
            name = "simkd" if len(self.heads) == 1 else f"simkd_{number + 1}"
            terms[name] = self._error(own, target, number, batch)
            maps.append(target)
        weights = dict.fromkeys(terms, 1.0)
        if self.own is not None:
            name = "hard" if self.joint_target == "labels" else "soft"
            terms[name] = self._joint(own, maps, batch)
            weights[name] = self.joint_weight
        return Losses(terms, weights)

    def stages(self) -> Iterable[Stage]:
        """One stage: the student up to the cut and the projectors; `sequential` has one for its Linear."""
        groups: dict[str, Trained] = {
            "student": self._encoder,
            "projector": [tail.projector for tail in self._tails()],
        }
        if self.own is not None:
            groups["classifier"] = [self.own.classifier]
        sequential = self.variant == "sequential"
        first = Stage("train", [Update("student", groups)], begin=self._begin, scored=not sequential)
        if not sequential:
            return [first]
        classifiers = [tail.classifier for tail in self._tails()]
        return [
            first,
            Stage("classifier", [Update("classifier", {"classifier": classifiers})], data="labelled"),
        ]

    def deployable(self) -> nn.Module:
        """The student up to the cut, the projectors and the classifiers; of `joint` its own classifier.

        A `Composed`: the student's layers after the cut are gone from it, the teacher is not in it.
        """
        assert self.student is not None
        tails = self._tails() if self.own is None else [self.own]
        return Composed(untapped(self.student), self.cut, copy.deepcopy(tails), self._unused)

    def _tails(self) -> list[Tail]:
        return [cast(Tail, tail) for tail in self.tails]

    def _keys(self) -> list[str]:
        """The names of the teachers' values in a record."""
        paths = [head.path for head in self.heads]
        return paths if len(paths) == 1 else [f"teacher{n} {path}" for n, path in enumerate(paths, 1)]

    def _error(self, own: Tensor, target: Tensor, number: int, batch: Mapping[str, Any]) -> Tensor:
        """The mean squared error of one teacher, after the larger map was averaged."""
        source, target = _reuse.aligned(own, target, self.cut, self.heads[number].path)
        projected = self._tails()[number].project(source)
        count = denominator(batch, "samples", len(source))
        return feature_error(projected, target, count=count)

    def _joint(self, own: Tensor, maps: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """The term of the student's own classifier."""
        assert self.own is not None
        outputs = self.own.answer(own)
        if self.joint_target == "labels":
            return self._hard(outputs, batch)
        with torch.no_grad():
            said = [
                tail.answer(target.to(tail.classifier.weight.dtype))
                for tail, target in zip(self._tails(), maps, strict=True)
            ]
        return soft_term(self.task, outputs, torch.stack(said).mean(0), batch, self.temperature)

    def _classify(self, value: Tensor, batch: Mapping[str, Any]) -> Losses:
        """The labels' term of `sequential`."""
        outputs = torch.stack([tail(value) for tail in self._tails()]).mean(0)
        return Losses({"hard": self._hard(outputs, batch)}, {"hard": 1.0})

    def _hard(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if batch.get("targets") is None:
            raise RequestError(
                f'variant = "{self.variant}" needs labels, and the batch has no targets',
                fix='variant = "simkd" needs none',
            )
        return self.task.loss(outputs, batch)

    def _check_target(self, target: Tensor, number: int, samples: int) -> None:
        """Refuses another number of samples or channels; looks for what is not finite.

        Each time on the CPU, else at the first batch alone: reading a value back would stall an accelerator.
        """
        path, channels = self.heads[number].path, self._tails()[number].plan.teacher
        if len(target) != samples or target.shape[1] != channels:
            raise RequestError(
                f"teacher layer {path!r} gives {tuple(target.shape)}; needed {samples} samples of {channels} "
                "channels",
                fix="an example batch like those of the training",
            )
        first = not self._looked
        self._looked = self._looked or number == len(self.heads) - 1
        if first or target.device.type == "cpu":
            check_finite(target, f"teacher features at {path!r}")

    # -- at construction -----------------------------------------------------------------------------------

    def _place_tails(self, declared: Mapping[str, Mapping[str, str]]) -> None:
        """Builds the projectors and classifiers from what a dry batch shows."""
        unknown = set(declared) - {"student", "teacher"}
        if unknown:
            raise RequestError(f"layouts of {min(unknown)!r}", near=["student", "teacher"])
        picture, of_student = picture_of(self._samples), self.shapes["student"]
        self._layout = layouts_of(of_student, declared.get("student", {}), picture, "student")[self.cut]
        self._layouts: list[Layout] = []
        tails, heads = [], []
        for number, (reader, head) in enumerate(zip(self.teachers, self.heads, strict=True)):
            said = _reuse.answer(reader.model, head.path, self._samples, self.task)
            shapes = {head.path: said.value.shape}
            layout = layouts_of(shapes, declared.get("teacher", {}), picture, "teacher")[head.path]
            self._layouts.append(layout)
            head = _reuse.check_identity(reader.model, head, layout, said)
            tails.append(self._tail(number, head, head.target(layout.to_map(said.value, head.path))))
            heads.append(head)
        self.heads = tuple(heads)
        if self.variant == "simkd":
            _reuse.check_outputs(self.outputs, self.heads)
        self.tails = nn.ModuleList(tails)
        self.own = self._own_tail() if self.variant == "joint" else None
        like = next(value for value in self.student_taps.model.parameters() if value.is_floating_point())
        for tail in (self.tails, self.own):
            if tail is not None:  # where the student is, in its precision, at least float32
                tail.to(like.device, torch.promote_types(like.dtype, torch.float32))

    def _sides(self) -> tuple[int, int, int]:
        """Channels, height and width of the student's map."""
        return self._layout.sides(self.shapes["student"][self.cut], f"student {self.cut}")

    def _tail(self, number: int, head: Head, target: Tensor) -> Tail:
        """From the student's map to the outputs of one teacher.

        Args:
            number: of the teacher.
            head: what of it is reused.
            target: its map, [B, C_t, H_t, W_t].
        """
        model = self.teachers[number].model
        channels, *size = self._sides()
        pooled = _reuse.pooled_size(size, target.shape[2:], self.cut, head.path)
        linear, sequential = head.linear(model), self.variant == "sequential"
        plan = TailPlan(
            layout=self._layout.text,
            student=channels,
            teacher=target.shape[1],
            factor=self.factor,
            depthwise=self.depthwise,
            final_relu=_reuse.ends_in_relu(self.final_relu, target, head.path),
            pooled=pooled,
            map=tuple(size) if pooled else (),
            reused=head.modules,
            number=number,
            pooling=head.pooling,
            relu=head.relu,
            features=linear.in_features,
            outputs=self.outputs if sequential else len(head.order),
            bias=linear.bias is not None,
        )
        return Tail(plan, [copy_of(_reuse.model_part(model, name)) for name in head.modules])

    def _own_tail(self) -> Tail:
        """The student's own classifier on the mean of its map."""
        channels = self._sides()[0]
        return Tail(TailPlan(self._layout.text, channels, channels, channels, self.outputs, factor=0))

    def _begin(self, data: Any) -> Any:
        """Takes the teacher's weights as they are when training begins; they must still make its outputs."""
        for reader, head, layout in zip(self.teachers, self.heads, self._layouts, strict=True):
            said = _reuse.answer(reader.model, head.path, self._samples, self.task)
            _reuse.check_identity(reader.model, head, layout, said)
        self._copy()
        return data

    def _copy(self) -> None:
        """Copies the weights of the teachers' classifiers and reused layers, which are frozen here."""
        for tail, head, reader in zip(self._tails(), self.heads, self.teachers, strict=True):
            for own, name in zip(tail.reused, head.modules, strict=True):
                own.load_state_dict(_reuse.model_part(reader.model, name).state_dict())
            if self.variant != "sequential":
                head.copy_to(tail.classifier, reader.model)
                tail.classifier.requires_grad_(False)

    def _check_deployable(self) -> None:
        """Holds that the student runs without its layers after the cut."""
        network = self.deployable()
        try:
            with undisturbed(network, training=False) as plain:
                self.task.call(plain, beside(plain, self._samples))
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            raise RequestError(
                f"the student does not run without its layers after {self.cut!r}: {error}",
                fix="another student layer",
            ) from error
