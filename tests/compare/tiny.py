"""What the tests of comparisons share: recipes that train in a second, a method that fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from torch import nn

from limbeck.method import Card, Method
from limbeck.recipe import Recipe
from limbeck.record import Losses, Record
from limbeck.task import Task

TABLES: dict[str, Any] = {
    "data": {"source": "tests.benchmarks.pictures:tiny", "validation": 0.3},
    "teacher": {"model": "cnn-tiny", "weights": "train"},
    "student": {"model": "cnn-tiny"},
    "train": {"epochs": 2, "batch_size": 16},
}


def recipe(name: str = "kd", method: str = "kd", **tables: Any) -> Recipe:
    """A recipe on tiny pictures; `tables` replace its own."""
    return Recipe(**{"name": name, "method": {"name": method}, **TABLES, **tables})


def written(folder: Path, *recipes: Recipe) -> list[str]:
    """Files of recipes, by name."""
    for each in recipes:
        (folder / f"{each.name}.toml").write_text(each.to_toml(), encoding="utf-8")
    return [str(folder / f"{each.name}.toml") for each in recipes]


@final
class Breaks(Method):
    """Supervised training that fails in its second epoch."""

    card = Card(
        slug="breaks",
        title="A method that breaks",
        paper="none",
        equations=("L = task loss",),
        tasks=("classes",),
        needs=("labels",),
        teacher="none",
        deployed="the student",
        hyperparameters={},
    )

    def __init__(self, student: nn.Module, *, task: Task | None = None) -> None:
        super().__init__(student, task=task)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The supervised term, in the first epoch."""
        if self.epoch > 1:
            print("a line of the user's own")
            raise ValueError("no second epoch | <b>here</b>")
        return Losses({"hard": self.task.loss(student.output, batch)}, {"hard": 1.0})
