"""What a training cost: the time of a step by its parts, memory, parameters that only training needs."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from limbeck._clock import PARTS, Clock
from limbeck.errors import RequestError
from limbeck.method import Method


@dataclass(frozen=True)
class Cost:
    """What a training cost, over all its sessions where it was resumed.

    Attributes:
        seconds: a mean step by part, in this order: data, teacher, student, loss, backward, optimizer, other.
            `student` is the forward of what trains, `loss` the rest of the method's forward, `data` includes
            waiting for it. Of several processes, the main one's.
        steps: that were timed: on the processor all but the first of each size (they warm up), elsewhere one
            in fifty. 0 where the training was too short; `seconds` is empty then.
        peak_memory_bytes: the most that this process has held, of the device, or of main memory on the
            processor; since the process began, so a later training's is never below an earlier one's. None
            where the system does not tell.
        extra_parameters: trained, and not in the network that is kept; None where the method says of no
            network that it is kept.
        kept_parameters: of the network that is kept.
    """

    seconds: Mapping[str, float]
    steps: int
    peak_memory_bytes: int | None
    extra_parameters: int | None
    kept_parameters: int | None

    @property
    def step_seconds(self) -> float:
        """A mean step in all; 0 where none was timed."""
        return sum(self.seconds.values())

    def stored(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "seconds": {name: round(seconds, 7) for name, seconds in self.seconds.items()},
            "steps": self.steps,
            "peak_memory_bytes": self.peak_memory_bytes,
            "extra_parameters": self.extra_parameters,
            "kept_parameters": self.kept_parameters,
        }


def cost_of(clock: Clock, method: Method, trained: Iterable[nn.Parameter], device: torch.device) -> Cost:
    """The cost of a training that is over.

    Args:
        clock: that timed it.
        method: with its last weights.
        trained: the parameters that some update trained.
        device: where.
    """
    steps = clock.steps
    extra, kept = _parameters(method, list(trained))
    return Cost(
        seconds={name: clock.seconds[name] / steps for name in PARTS} if steps else {},
        steps=steps,
        peak_memory_bytes=peak_memory(device),
        extra_parameters=extra,
        kept_parameters=kept,
    )


def peak_memory(device: torch.device | str | None) -> int | None:
    """The most bytes that this process held so far: of the GPU, or of main memory; None if unknown."""
    if device is not None and torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _parameters(method: Method, trained: Sequence[nn.Parameter]) -> tuple[int | None, int | None]:
    """How many parameters were trained and are not kept, and how many are kept.

    The network that is kept is a copy, so its parameters are known by their values.
    """
    try:
        kept = list(method.deployable().parameters())
    except RequestError:  # a method of several networks that names none
        return None, None
    left = Counter(map(_mark, kept))
    extra = 0
    for parameter in trained:
        mark = _mark(parameter)
        if left[mark]:
            left[mark] -= 1
        else:
            extra += parameter.numel()
    return extra, sum(parameter.numel() for parameter in kept)


def _mark(parameter: nn.Parameter) -> tuple[Any, ...]:
    values = parameter.detach()
    return tuple(values.shape), values.dtype, float(values.double().sum()), float(values.double().norm())
