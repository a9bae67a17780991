"""What the training loop tells whoever listens: screens, logs, trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class StageStart:
    """A stage begins (or goes on after a resume): its number from 0, name, epochs and steps an epoch."""

    number: int
    name: str
    epochs: int
    steps: int
    trainable: int
    learning_rates: Mapping[str, float]


@dataclass(frozen=True)
class StepEnd:
    """A step was taken; `terms` are unweighted, on their device: reading them may wait for it."""

    stage: int
    epoch: int
    step: int
    steps: int
    samples: int
    seconds: float
    terms: Mapping[str, Tensor | float]
    learning_rates: Mapping[str, float]
    index: tuple[int, ...] = ()


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is over: mean unweighted terms and the scores by network (empty if not scored)."""

    stage: int
    stage_name: str
    epoch: int
    epochs: int
    seconds: float
    samples: int
    terms: Mapping[str, float]
    notes: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    chosen: bool = False

    def stored(self) -> dict[str, Any]:
        """The same as plain nested values."""
        return asdict(self)


class Listener:
    """Hears what the loop does; every member may be overridden, none must be."""

    #: Whether each StepEnd shall carry the index of its samples (costs a copy from the device).
    wants_index = False

    def on_stage(self, event: StageStart) -> None:
        """A stage begins."""

    def on_step(self, event: StepEnd) -> None:
        """A step was taken."""

    def on_epoch(self, event: EpochEnd) -> None:
        """An epoch is over and scored."""

    def on_message(self, text: str) -> None:
        """One line that the user should see."""
