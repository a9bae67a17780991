"""What a training comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from limbeck.engine.cost import Cost
from limbeck.engine.state import restore_method
from limbeck.method import Method


@dataclass
class Fit:
    """What came of a training: the method with its last weights, and the way there.

    Attributes:
        history: a mapping an epoch: stage, epoch, mean unweighted `terms`, `scores` by network, seconds.
        scores: by network, of the last epoch; `chosen_scores`: of the chosen one.
        cost: what a step took by its parts, memory, parameters that only training needs.
        chosen_epoch: the epoch of the last stage with the best validation score; its last without validation.
    """

    method: Method
    history: list[dict[str, Any]]
    scores: dict[str, dict[str, float]]
    chosen_scores: dict[str, dict[str, float]]
    chosen_epoch: int
    seconds: float
    cost: Cost
    weights: dict[str, dict[str, Tensor]] = field(repr=False)

    def load(self, which: Literal["last", "chosen"] = "chosen") -> Method:
        """Puts the last or the chosen weights, and their scores, into the method and returns it."""
        restore_method(self.method, self.weights[which])
        self.method.scores = self.chosen_scores if which == "chosen" else self.scores
        return self.method
