"""The student alone, trained on labels: what every distilled student is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import nn

from limbeck.method import Card, Method
from limbeck.record import Losses, Record
from limbeck.task import Task


@final
class Plain(Method):
    """Supervised training without a teacher: L = task loss. Samples without a label do not count.

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

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The supervised term alone; the teacher's record is not read."""
        return Losses({"hard": self.task.loss(student.output, batch)}, {"hard": 1.0})
