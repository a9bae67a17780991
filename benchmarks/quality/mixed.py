"""A second plain baseline for few labels: the batches that the methods get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import nn

from limbeck.method import Card, Method
from limbeck.record import Losses, Record
from limbeck.task import Task


@final
class MixedPlain(Method):
    """Supervised training on batches of all samples, of which those without a label do not count in the loss.

    `plain` takes as many steps, on batches of labelled samples alone. Here few samples of a batch have a
    label, but batch norms see the pictures of all, as in the methods. Both are given, so that no method looks
    good by a weak baseline.

    Args:
        student: the network.
        task: classification unless given.
    """

    card = Card(
        slug="plain_mixed",
        title="Plain training on batches of labelled and unlabelled samples",
        paper="none: a baseline of this benchmark",
        equations=("L = task loss",),
        tasks=("classes", "labels", "values"),
        needs=("labels",),
        teacher="none",
        deployed="the student",
        hyperparameters={},
    )

    def __init__(self, student: nn.Module, *, task: Task | None = None) -> None:
        super().__init__(student, task=task)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The supervised term alone; the teacher's record is not read."""
        return Losses({"hard": self.task.loss(student.output, batch)}, {"hard": 1.0})
