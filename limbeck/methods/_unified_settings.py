"""What UniKD refuses of its settings, and of the outputs of its networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from limbeck.errors import RequestError
from limbeck.losses import check_not_negative, check_temperature
from limbeck.methods._agreement import check_choice, check_read
from limbeck.methods._unified_heads import TeacherFeature

Logits = Literal["kd", "dkd", "none"]
Constraint = Literal["kl", "gaussian", "features"]


@dataclass(frozen=True)
class Settings:
    """The settings of `UniKD` that go together, under its names; wrong ones are refused at once."""

    teacher_feature: TeacherFeature
    constraint: Constraint
    logits: Logits
    hard_weight: float
    logits_weight: float
    feature_weight: float
    supp_weight: float
    temperature: float
    feature_temperature: float
    target_weight: float
    non_target_weight: float
    warmup: float
    detach_targets: bool
    sample: bool
    clamp_log_variance: bool
    max_channels: int
    sizes: Sequence[int | Sequence[int]] | None

    def __post_init__(self) -> None:
        check_choice("teacher_feature", self.teacher_feature, get_args(TeacherFeature))
        check_choice("constraint", self.constraint, get_args(Constraint))
        check_choice("logits", self.logits, get_args(Logits))
        check_temperature(self.temperature)
        check_temperature(self.feature_temperature)
        weights = [name for name in vars(self) if name.endswith("_weight")]
        check_not_negative(**{name: getattr(self, name) for name in weights})
        if not 0 < self.warmup < math.inf:
            raise RequestError(f"warmup {self.warmup}; needed a number of epochs above 0", fix="warmup = 20")
        if self.max_channels < 1:
            raise RequestError(
                f"max_channels {self.max_channels}; needed at least 1", fix="max_channels = 512"
            )
        self._check_constraint()
        self._check_read()

    @property
    def reads_outputs(self) -> bool:
        """Whether a term reads the outputs of the teacher."""
        return self.supp_weight > 0 or (self.logits != "none" and self.logits_weight > 0)

    @property
    def has_variance(self) -> bool:
        """Whether a term reads a log variance."""
        if self.constraint == "features":
            return False
        return self.sample or (self.constraint == "gaussian" and self.feature_weight > 0)

    def check_outputs(self, kind: str, outputs: Mapping[str, int], width: int) -> None:
        """Refuses outputs that the terms cannot be computed of.

        Args:
            kind: of the task.
            outputs: number of values by network; 0 where they are no [B, K].
            width: K of z.
        """
        if kind != "classes" and (self.supp_weight > 0 or self.logits == "dkd"):
            raise RequestError(
                f"supp and dkd are for classes, and the outputs are {kind}",
                fix='supp_weight = 0, width = 128, logits = "kd"',
            )
        student, teacher = outputs["student"], outputs["teacher"]
        if self.reads_outputs and student != teacher:
            raise RequestError(
                f"the student gives {student} outputs and the teacher {teacher}; supp and the term of the "
                "outputs need the same classes in the same order",
                fix='logits = "none", supp_weight = 0 learn from the layers, whatever the classes',
            )
        if self.supp_weight > 0 and width != student:
            raise RequestError(
                f"width {width} for {student} classes; supp ties z to the outputs",
                fix="leave width out, or supp_weight = 0",
            )
        if width < 2 and self.constraint != "features":
            raise RequestError(f"width {width}; a distribution needs at least 2 values", fix="width = 128")

    def _check_constraint(self) -> None:
        """Refuses what would leave heads without anything to learn."""
        if self.feature_weight == 0 and self.supp_weight == 0:
            raise RequestError(
                "feature_weight 0 and supp_weight 0: nothing trains on the layers", fix='method.name = "kd"'
            )
        if self.constraint == "features":
            if self.teacher_feature == "aff":
                raise RequestError(
                    'constraint = "features" with teacher_feature = "aff": a map that trains to be close to '
                    "another one collapses",
                    fix='teacher_feature = "first_stage" or "last_stage"',
                )
            if self.supp_weight > 0 or self.feature_weight == 0:
                raise RequestError(
                    'constraint = "features" predicts no distribution, so there is no supp',
                    fix="supp_weight = 0, feature_weight = 1",
                )
        elif self.detach_targets and self.supp_weight == 0 and self.teacher_feature != "last_stage":
            raise RequestError(
                "detach_targets with supp_weight 0: nothing trains the head of the teacher",
                fix="detach_targets = false",
            )

    def _check_read(self) -> None:
        """Refuses a setting that another one keeps from being read."""
        plain = self.logits != "dkd"
        check_read(
            self,
            ("target_weight", 1.0, plain, 'logits = "dkd"'),
            ("non_target_weight", 8.0, plain, 'logits = "dkd"'),
            ("warmup", 20, plain, 'logits = "dkd"'),
            ("max_channels", 512, self.teacher_feature == "last_stage", "a fusion"),
            ("sizes", None, self.teacher_feature == "last_stage", "a fusion"),
            ("detach_targets", False, self.constraint == "features", "predicted distributions"),
            ("clamp_log_variance", False, not self.has_variance, "log variances"),
        )
