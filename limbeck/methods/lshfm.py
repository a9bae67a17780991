"""LSHFM: the student mimics the features of its teacher: the direction strictly, the size less so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from limbeck.data.dataset import as_dataset
from limbeck.errors import RequestError
from limbeck.losses import (
    check_finite,
    check_labels,
    check_not_negative,
    check_same_shape,
    check_temperature,
    hash_bias,
    hash_values,
    reduce_samples,
    reduce_weighted,
    widen,
)
from limbeck.method import Card, Method, Stage, Trained, Update
from limbeck.methods._agreement import check_choice
from limbeck.methods._averaging import LastEpochs
from limbeck.methods._embedding import (
    EmbeddedClassifier,
    Found,
    embed,
    fold,
    last_layer,
    train_mode,
    without,
)
from limbeck.methods._mimicking import (
    FILTERED,
    Bias,
    Features,
    Variant,
    check_embedded,
    check_number,
    check_settings,
    check_soft,
    check_std,
    errors_of,
    features_over,
    figures_of,
    paper_of,
    variant_of,
)
from limbeck.methods._penultimate import last_of_both, vector
from limbeck.methods._rows import soft_term, supervised
from limbeck.record import Losses, Record
from limbeck.taps import untapped
from limbeck.task import Classification, Task, as_model_type, denominator
from limbeck.teacher import Teacher


@final
class LSHFM(Method):
    """LSHFM (Wang, Ge, Wu 2022): distilling knowledge by mimicking features.

    With f_s [B, D_s], f_t [B, D_t] what enters the last Linear of student and teacher, W [N, D_t] random
    hyperplanes with entries of Normal(0, std^2), u = f W^T + b, bits c = 1[u_t > 0]:

        L      = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * (L_mse + L_lsh)
        L_mse  = mean over B,D_t of (f_s - f_t)^2
        L_lsh  = mean over B,N of softplus(u_s) - c u_s

    The hash term counts on which side of a hyperplane f_s lies, so it pins the direction and leaves the size
    free. Neither term reads labels or outputs of the teacher. Of unequal widths the student's classifier
    becomes Linear(D_s, D_t), whose output is f_s, and Linear(D_t, K), both initialised afresh, in the given
    student; `deployable()` is a copy with the two folded into one Linear, the student's own architecture.

    b balances the bits over the training set; it is fitted when training begins, in one view of each sample
    (`stage.begin(data)` in a loop of one's own). W and b are buffers: saved, never trained or deployed.

    Terms: `feature` (L_mse) and `hash` (L_lsh), `hard`, `soft`. Notes, means over the batch: `cosine` of f_s
    and f_t, `norm_ratio` |f_s| / |f_t|, `bit_agreement` 0..1, `mimicked` the share of samples that count.
    With hard_weight = soft_weight = 0 the student's classifier is not trained.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network; without a classifier (self-supervised), its output is f_t.
        task: classification unless given. The mimicking of detectors is not built yet.
        taps: one layer of each network, [B, D] or [B, D, 1, 1]; what enters the last Linear unless given.
        example: one batch, which shows widths and classifiers.
        variant: `lshl2` as above; `lsh` without L_mse; `lshl2_s`, `lsh_s`: only of samples that the teacher
            classifies as labelled, divided by their number (none: 0). For comparison `l2` (L_mse alone),
            `l1`, `l2_norm` (of features of unit length), without hyperplanes; `hash_l2`, `hash_l1` (between
            u_s and u_t). Unless given, with classes that both networks share, `lshl2_s` for samples with a
            label and `lshl2` for the others; else `lshl2`.
        beta: >= 0; 6, of labels 0.5 (COCO 3).
        hard_weight: gamma >= 0, weight of the labels, for labels the mean over classes; 0 needs none.
        soft_weight: alpha >= 0, weight of the teacher's outputs.
        temperature: of the soft term, T > 0.
        num_hashes: N >= 1; 32 D_t, of labels 2048 (ImageNet 2048).
        bias: `median` (the lower one), `mean`, or `zero` (ImageNet), which needs no pass over the data.
        std: > 0; the deviation of all weights of the teacher's classifier, as it is at construction, unless
            given (ImageNet 0.06 for ResNet-34, 0.03 for ResNet-101).
        force_embedding: also between equal widths; unless given where there are two stages.
        two_stages: first the embedding alone learns to mimic, without labels, then all is trained; unless
            given for labels. W and b are those of both stages, epochs are shared equally.
        align_beta: >= 0, beta of the first stage.
        align_statistics: in the first stage the student is in train mode, so its batch statistics move.
        average_epochs: >= 0; above 0 the mean of the weights at the ends of so many last epochs is scored
            too, as `averaged` of `networks()`. It is not what is deployed, and no part of a combination.
    """

    card = Card(
        slug="lshfm",
        title="LSHFM (feature mimicking with locality-sensitive hashing)",
        paper="Wang, Ge, Wu: Distilling Knowledge by Mimicking Features, IEEE TPAMI 44(11), 2022, "
        "arXiv 2011.01424",
        equations=(
            "L = hard_weight * CE(z, y) + soft_weight * T^2 KL(p || q) + beta * (L_mse + L_lsh)",
            "L_mse = mean over B,D of (f_s - f_t)^2, f what enters the classifier",
            "L_lsh = mean over B,N of softplus(u_s) - c u_s, u = f W^T + b, c = 1[u_t > 0]",
            "lshl2_s: sum_i m_i l_i / sum_i m_i, m_i = 1 where the teacher's class is the label",
        ),
        tasks=("classes", "labels", "values"),
        needs=("networks that end in one Linear, or layers", "labels, unless hard_weight is 0"),
        teacher="outputs",
        deployed="the student alone, its embedding folded into its classifier",
        hyperparameters={
            "variant": "lshl2, lshl2_s, lsh, lsh_s, l2, l1, l2_norm, hash_l2 or hash_l1; lshl2_s with labels",
            "beta": ">= 0, weight of the mimicking; 6 (ImageNet 5; labels: VOC07 0.5, COCO 3)",
            "hard_weight": ">= 0, gamma, weight of the labels; 1",
            "soft_weight": ">= 0, alpha, weight of the teacher's outputs; 0",
            "temperature": "T > 0 of the soft term; 4",
            "num_hashes": "N >= 1; 32 D_t (ImageNet and labels 2048, VOC07 ResNet-50 8192)",
            "bias": "median, mean or zero; median (ImageNet zero)",
            "std": "> 0, of the hyperplanes; that of the teacher's classifier (ImageNet 0.06, 0.03)",
            "force_embedding": "an embedding between equal widths too; with two stages",
            "two_stages": "the embedding alone first; for labels",
            "align_beta": ">= 0, beta of the first of two stages; 1",
            "align_statistics": "batch statistics move in the first of two stages; no (the code: yes)",
            "average_epochs": ">= 0, last epochs whose mean weights are scored beside; 0 (the code: 10)",
        },
        couples_batch=True,
        taps=True,
        minimum={"feature": 0.0},
        consulted="DoctorKey/LSHFM.singleclassification, DoctorKey/LSHFM.multiclassification, "
        "DoctorKey/LSHFM.detection",
        inferred=(
            "the defaults are those of the authors' code for CIFAR-100, of labels for VOC07; the paper's own "
            "tables were not available",
            "torch's initialisation of embedding and classifier; that they are folded; a classifier without "
            "bias has an embedding without",
            "without labels hard_weight is 0; lshl2_s where there are labels, lshl2 for samples without one",
            "no sample that the teacher gets right: the term is 0 (the code: not a number)",
            "labels: binary cross-entropy, mean over samples and classes; one W and b for both stages, a "
            "fresh classifier in the second; what rests in the first keeps its batch statistics",
            "l2_norm: lengths of at least 1e-12",
            "the bias is fitted in the first augmented view where there are views",
        ),
    )
    hash_weight: Tensor
    hash_bias: Tensor
    bias_fitted: Tensor
    _joint: EmbeddedClassifier | None

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Teacher,
        *,
        task: Task | None = None,
        taps: Mapping[str, Sequence[str]] | None = None,
        example: Any = None,
        variant: Variant | None = None,
        beta: float | None = None,
        hard_weight: float = 1.0,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
        num_hashes: int | None = None,
        bias: Bias = "median",
        std: float | None = None,
        force_embedding: bool | None = None,
        two_stages: bool | None = None,
        align_beta: float | None = None,
        align_statistics: bool = False,
        average_epochs: int = 0,
    ) -> None:
        task = task or Classification()
        paper = paper_of(task)
        two = paper.two_stages if two_stages is None else two_stages
        check_settings(two_stages=two, align_beta=align_beta, align_statistics=align_statistics)
        first = 1.0 if align_beta is None else align_beta
        beta = paper.beta if beta is None else beta
        check_not_negative(beta=beta, hard_weight=hard_weight, soft_weight=soft_weight, align_beta=first)
        check_not_negative(average_epochs=average_epochs)
        check_temperature(temperature)
        check_choice("bias", bias, get_args(Bias))
        source = teacher if isinstance(teacher, Teacher) else Teacher(teacher, task=task)
        found = Found(*last_of_both(student, source.model, task, taps, example, "lshfm"))
        chosen = variant_of(variant, found, task)
        spread = check_std(std, found, chosen)
        number = check_number(num_hashes, paper, found.widths[1], chosen)
        check_soft(found, soft_weight)
        force = two if force_embedding is None else force_embedding
        embedded = force or found.widths[0] != found.widths[1]
        check_embedded(two, embedded)
        joint = embed(student, found) if embedded else None
        paths = {"student": [found.own.path], "teacher": [found.other.path]}
        super().__init__(student, source, task=task, taps=paths, example=example)
        self.variant, self.mimics_unlabelled = chosen, variant is None
        self.beta, self.hard_weight, self.soft_weight = beta, hard_weight, soft_weight
        self.temperature, self.num_hashes, self.std = temperature, number, spread
        self.bias: Bias = bias if number else "zero"
        self.force_embedding, self.two_stages = force, two
        self.align_beta, self.align_statistics = first, align_statistics
        self.widths, self.outputs = found.widths, found.outputs[0]
        # A part of the student, which is where it is saved: known here, not registered a second time.
        object.__setattr__(self, "_joint", joint)
        # What no term trains of the student; in a list, which registers nothing.
        self._idle = last_layer(found, joint) if hard_weight == soft_weight == 0 else []
        self.average_epochs = average_epochs
        self.last = LastEpochs(student, average_epochs) if average_epochs else None
        self._looked = False
        self._draw()

    def _draw(self) -> None:
        """Draws W from torch's generator, the same on every device."""
        assert self.student is not None
        like = next(self.student.parameters())
        kind = torch.promote_types(like.dtype, torch.float32)
        weight = torch.randn(self.num_hashes, self.widths[1]) * self.std
        self.register_buffer("hash_weight", weight.to(like.device, kind))
        self.register_buffer("hash_bias", torch.zeros_like(self.hash_weight[:, 0]))
        self.register_buffer("bias_fitted", torch.tensor(self.bias == "zero", device=like.device))

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; the teacher stops after its features where its output is not read.

        Args:
            batch: in any form that the task takes.
            update: `align` in the first of two stages, which stops at the student's features; `student`.
        """
        batch = self.task.batch(batch)
        assert self.student is not None and self.teacher is not None
        aligning = update == "align"
        if self.last is not None and torch.is_grad_enabled() and not aligning:
            self.last.step(self.student, self.epoch, self.epochs)
        wanted = not aligning and (self.variant in FILTERED or self.soft_weight > 0)
        teacher = self.teacher(batch, output=wanted)
        # The method as a whole rests in that stage; what trains says whether this is training.
        trains = self._joint is not None and self._joint.embedding.training
        moving = aligning and self.align_statistics and trains
        with train_mode(self.student) if moving else nullcontext():
            student = self.student_taps(batch, output=not aligning)
        return self.losses(student, teacher, batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The terms of the features, and those of the student's output where there is one.

        Args:
            student: what enters its classifier, [B, D_s]; its output but in the first of two stages.
            teacher: what enters its classifier, [B, D_t]; its output where the variant or soft_weight needs
                it.
            batch: normal form; `targets` where there are labels.
        """
        features = self._features(student, teacher)
        self._look(features, batch)
        aligning = self.two_stages and student.output is None
        counted = None if aligning else self._counted(teacher, batch)
        beta = self.align_beta if aligning else self.beta
        terms = {
            name: self._mean(each, counted, batch) for name, each in errors_of(self.variant, features).items()
        }
        weights = dict.fromkeys(terms, beta)
        if self.hard_weight > 0 and not aligning:
            terms["hard"], weights["hard"] = self._hard(student.output, batch), self.hard_weight
        if self.soft_weight > 0 and not aligning:
            soft = soft_term(self.task, student.output, teacher.output, batch, self.temperature)
            terms["soft"], weights["soft"] = soft, self.soft_weight
        notes = figures_of(features)
        if counted is not None:
            notes["mimicked"] = counted.mean()
        return Losses(terms, weights, notes)

    def stages(self) -> Sequence[Stage]:
        """One stage that trains the student, or two of equal length, the first for the embedding alone."""
        assert self.student is not None
        begin = None if self.bias == "zero" else self._fit
        trained: Trained = without(self.student, self._idle[0]) if self._idle else self.student
        update = Update("student", {"student": trained})
        if self._joint is None or not self.two_stages:
            return [Stage("train", [update], begin=begin, scored=not self._idle)]
        align = Update("align", {"embedding": self._joint.embedding})
        return [
            Stage("align", [align], begin=begin, scored=False),
            Stage("train", [update], scored=not self._idle),
        ]

    def networks(self) -> dict[str, nn.Module]:
        """What is deployed; and with `average_epochs` the mean of the last epochs, folded like it."""
        assert self.student is not None
        if self.last is None:
            return {"student": self.deployable()}
        return {"student": self.deployable(), "averaged": fold(self.last.averaged(self.student))}

    def deployable(self) -> nn.Module:
        """A copy of the student without taps, in its own architecture: the embedding is folded."""
        assert self.student is not None
        return fold(untapped(self.student))

    def _features(self, student: Record, teacher: Record) -> Features:
        """f_s behind the embedding, f_t, and the hash values of both."""
        own, target = (
            vector(record[self.tapped[side][0]], f"{side} {self.tapped[side][0]!r}")
            for side, record in (("student", student), ("teacher", teacher))
        )
        if own.shape[1] != self.widths[0]:
            raise RequestError(
                f"student features {tuple(own.shape)}; at construction they had {self.widths[0]} entries"
            )
        if self._joint is not None:
            embedding = self._joint.embedding
            own = embedding(as_model_type(embedding, own))
        check_same_shape(own, target, "features")
        hashes = hash_values(own, self.hash_weight, self.hash_bias)
        with torch.no_grad():
            target_hashes = hash_values(target, self.hash_weight, self.hash_bias)
        return Features(own, target, hashes, target_hashes)

    def _counted(self, teacher: Record, batch: Mapping[str, Any]) -> Tensor | None:
        """Which samples are mimicked, [B] of 0 and 1; None: all of them."""
        targets = batch.get("targets")
        if self.variant not in FILTERED or (targets is None and self.mimics_unlabelled):
            return None
        if targets is None or teacher.output is None:
            raise RequestError(
                f"{self.variant} needs labels and the teacher's outputs, and the batch has no targets"
                if targets is None
                else f"{self.variant} needs the teacher's outputs, and its record has none",
                fix='variant = "lshl2", which mimics every sample',
            )
        if "mixed" in batch or targets.shape != teacher.output.shape[:1]:
            raise RequestError(
                f"{self.variant} asks whether the teacher is right about one class a sample; these samples "
                + (
                    "are mixed (mixup, cutmix)"
                    if "mixed" in batch
                    else f"have {tuple(targets.shape)} targets"
                ),
                fix='variant = "lshl2", or data.mix = "none"',
            )
        right: Tensor = teacher.output.argmax(1) == targets
        if self.mimics_unlabelled:
            right = right | ~self.task.labelled(targets)
        return right.to(widen(teacher.output).dtype)

    def _mean(self, values: Tensor, counted: Tensor | None, batch: Mapping[str, Any]) -> Tensor:
        """The mean of [B] over all samples, or over those that count."""
        if counted is not None:
            return reduce_weighted(values, counted.to(values.dtype))
        return reduce_samples(values, count=denominator(batch, "samples", len(values)))

    def _hard(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if batch.get("targets") is None:
            raise RequestError(
                f"hard_weight {self.hard_weight:g} needs labels, and the batch has no targets",
                fix="hard_weight = 0 mimics the teacher's features alone",
            )
        return supervised(self.task, output, batch, "mean")

    def _look(self, features: Features, batch: Mapping[str, Any]) -> None:
        """Refuses what makes the terms meaningless; later reading back would stall another device."""
        first, self._looked = not self._looked, True
        if first and not bool(self.bias_fitted):
            self._looked = False
            raise RequestError(
                f'bias "{self.bias}" is taken over the whole training set, which was not shown yet',
                fix='for stage in method.stages(): if stage.begin: stage.begin(data); or bias = "zero"',
            )
        if not first and features.target.device.type != "cpu":
            return
        check_finite(features.target, f"teacher features at {self.tapped['teacher'][0]!r}")
        targets, read = batch.get("targets"), self.hard_weight > 0 or self.variant in FILTERED
        if isinstance(targets, Tensor) and self.task.kind == "classes" and read:
            check_labels(targets, self.outputs)

    def _fit(self, data: Any) -> Any:
        """Fits b on what the teacher says of every sample; the data stay as they are.

        Args:
            data: the whole training set, in any form that `limbeck.data.as_dataset` takes.
        """
        assert self.teacher is not None
        rule: Literal["median", "mean"] = "mean" if self.bias == "mean" else "median"
        weight, path = self.hash_weight, self.tapped["teacher"][0]
        features = features_over(as_dataset(data), self.teacher, path, self.task, weight.device)
        with torch.no_grad():
            self.hash_bias.copy_(hash_bias(features.to(weight.dtype), weight, rule))
            self.bias_fitted.fill_(True)
        return data
