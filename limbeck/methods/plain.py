"""The student alone, trained on labels: what every distilled student is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import nn

from limbeck.method import Card, Method, Stage, Update
from limbeck.record import Losses, Record
from limbeck.task import Task


@final
class Plain(Method):
    """Supervised training without a teacher: L = task loss, on the samples that have a label.

    An epoch has as many steps as one over all samples, so that every method gets the same budget: where only
    some samples have a label, it passes over these several times.

    Args:
        student: the network.
        task: classification unless given.
    """

    card = Card(
        slug="plain",
        title="Plain supervised training (no distillation)",
        paper="none: the baseline under the same budget",
        equations=("L = task loss",),
        tasks=("classes", "labels", "values", "tokens", "boxes"),
        needs=("labels",),
        teacher="none",
        deployed="the student",
        hyperparameters={},
    )

    def __init__(self, student: nn.Module, teacher: None = None, *, task: Task | None = None) -> None:
        super().__init__(student, teacher, task=task)

    def stages(self) -> Sequence[Stage]:
        """One stage, on the labelled samples."""
        assert self.student is not None
        return [Stage("train", [Update("student", {"student": self.student})], data="labelled")]

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The supervised term alone; the teacher's record is not read."""
        return Losses({"hard": self.task.loss(student.output, batch)}, {"hard": 1.0})
