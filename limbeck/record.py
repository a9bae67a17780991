"""What a model said about one batch (Record), and what a method makes of it (Losses)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from limbeck.errors import RequestError, nearest


@dataclass
class Record:
    """What a model said about one batch: a plain value, made anew by every call.

    Args:
        output: what the task reads from the model, as logits [B, K]; None when the forward
            was stopped after the last tapped layer.
        layers: values at the named layers, by tap path.
    """

    output: Any
    layers: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, path: str) -> Tensor:
        """The value at a tapped layer.

        Raises:
            RequestError: the path was not tapped.
        """
        if path not in self.layers:
            raise RequestError(
                f"layer {path!r} is not in this record, which holds {', '.join(self.layers) or 'no layers'}",
                near=nearest(path, self.layers),
                fix="name it in taps",
            )
        return self.layers[path]


@dataclass
class Losses:
    """Unweighted loss terms, their weights and the weighted sum.

    Args:
        terms: scalar tensors by name, unweighted: this is what is logged.
        weights: the factor of each term, by the same names.
        notes: further values for the log, detached; scalars or small tensors.

    Attributes:
        total: sum over terms of weight times term; what `backward` is called on.

    Raises:
        RequestError: terms and weights have different names, or there is no term.
    """

    terms: dict[str, Tensor]
    weights: Mapping[str, float | Tensor]
    notes: dict[str, Tensor] = field(default_factory=dict)
    total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if not self.terms or set(self.terms) != set(self.weights):
            raise RequestError(
                f"terms {sorted(self.terms)} and weights {sorted(self.weights)} must have the same names, "
                "at least one"
            )
        self.notes = {name: value.detach() for name, value in self.notes.items()}
        total: Tensor | None = None
        for name, term in self.terms.items():
            weight = self.weights[name]
            if not isinstance(weight, Tensor) and weight == 0:
                continue  # left out of the sum: 0 * inf is not a number
            part = weight * term
            total = part if total is None else total + part
        self.total = next(iter(self.terms.values())) * 0 if total is None else total

    def detached(self) -> dict[str, Tensor]:
        """The unweighted terms and the total without their graph, for logging."""
        return {**{name: term.detach() for name, term in self.terms.items()}, "total": self.total.detach()}
