"""How a method is trained: the [train] section of a recipe, and what the machine offers. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Group(_Section):
    """Settings of one group of parameters that differ from the others'."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Learning rate of this group."""
    optimizer_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the optimizer for this group, as weight_decay."""


class Training(_Section):
    """How long and with what a method is trained."""

    epochs: int = Field(default=20, ge=0)
    """Passes over the training set, all stages together."""
    batch_size: int = Field(default=128, ge=1)
    """Samples a step, over all processes and micro-batches together."""
    optimizer: str = "SGD"
    """Name of a class in torch.optim."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Learning rate, or the highest one of a schedule. The default is for SGD; any other needs its own."""
    optimizer_options: dict[str, Any] | None = None
    """Further arguments of the optimizer. For SGD by default momentum 0.9, nesterov, weight_decay 5e-4."""
    schedule: str = "CosineAnnealingLR"
    """Name of a class in torch.optim.lr_scheduler, or "none"."""
    schedule_options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the schedule; lengths that are left out are those of the stage."""
    schedule_unit: Literal["auto", "step", "epoch"] = "auto"
    """What the schedule counts; auto: epochs where it has milestones or step sizes, otherwise steps."""
    clip_norm: float = Field(default=0.0, ge=0)
    """Largest norm of the gradient; 0 leaves it alone."""
    early_stop: int = Field(default=0, ge=0)
    """Epochs without a better validation score after which the last stage stops; 0 never."""
    groups: dict[str, Group] = Field(default_factory=dict)
    """Settings by group of parameters, as `limbeck methods SLUG` names them."""
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    """Longest time between two checkpoints within an epoch; one is written after every epoch anyway."""


@dataclass(frozen=True)
class Machine:
    """What the training runs on, as chosen.

    Args:
        device: a torch device, as "cpu" or "cuda"; None lets Accelerate choose.
        threads: torch threads within an operation; None leaves them alone.
        workers: processes that read data.
        precision: "fp32", "bf16" or "fp16" autocast of the student.
        micro_batch: the most samples that pass through the network at once; None is the whole batch.
        layout: memory format of pictures and of the convolutions that train. Results agree to rounding.
        compile: the networks that train are compiled in place by torch.compile, where a stage trains the
            whole of them; scoring and what is saved do not change.
    """

    device: str | None = None
    threads: int | None = None
    workers: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    micro_batch: int | None = None
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
