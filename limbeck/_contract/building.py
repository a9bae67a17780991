"""Building methods with their defaults on tiny networks, and looking at what moved."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._contract.tiny import example_for
from limbeck.engine.settings import Training
from limbeck.method import Method, Stage
from limbeck.task import Task
from limbeck.teacher import Teacher


class Broken(AssertionError):
    """A promise that a method does not keep."""


def hold(kept: bool, message: str) -> None:
    """Raises `Broken` unless a promise is kept."""
    if not kept:
        raise Broken(message)


def make(
    method: type[Method],
    *,
    seed: int = 0,
    statistics: bool = False,
    same: bool = False,
    samples: int = 8,
    answering: Callable[[nn.Module, Task], Teacher] | None = None,
) -> Method:
    """A method with its defaults on tiny networks.

    Args:
        method: its class.
        seed: of the weights.
        statistics: the networks have batch statistics.
        same: students and teacher have equal weights.
        samples: of the batch that sizes it; those of a training step.
        answering: makes what answers for the teacher; by default the method itself does.
    """
    example = example_for(method.card, statistics=statistics)
    teacher = example.network(100 if not same else seed)
    names = inspect.signature(method.__init__).parameters
    given: dict[str, Any] = {"task": example.task}
    constructor: Callable[..., Method] = method  # each has arguments of its own
    if "example" in names:
        given["example"] = example.batch(samples)
    if method.card.teacher != "none":
        given["teacher"] = teacher if answering is None else answering(teacher, example.task)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        if same:
            warnings.simplefilter("ignore")  # equal students are worth a warning anywhere else
        if method.card.cohort:
            students = [example.network(seed + (0 if same else number)) for number in range(2)]
            return constructor(students=students, **given)
        return constructor(example.network(seed), **given)


def teachers_of(method: Method) -> list[nn.Module]:
    """Its frozen teachers."""
    return [] if method.teacher is None else [method.teacher.model]


def copy_of_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: Mapping[str, Tensor]) -> set[str]:
    """The names of what differs from an earlier state."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def settings_for(epochs: int, **given: Any) -> Training:
    """Adam on batches of eight."""
    options: dict[str, Any] = {"optimizer": "Adam", "learning_rate": 0.01, "optimizer_options": {}}
    return Training(**{"epochs": epochs, "batch_size": 8, **options, **given})


def prepared(method: Method, stage: Stage) -> None:
    """What the loop does before a stage's first step."""
    if stage.begin is not None:
        stage.begin(example_for(method.card).data())
    method.enter(stage)
    method.epoch, method.epochs, method.progress, method.scores, method.history = 1, 4, 0.0, {}, []
    method.optimizers = {u.name: torch.optim.SGD(list(u.parameters()), lr=0.01) for u in stage.updates}


def stages_of(built: Method) -> list[Stage]:
    """The first stages: all of a list; of a generator those that it gives with empty scores."""
    built.epoch, built.epochs, built.progress, built.scores, built.history = 1, 4, 0.0, {}, []
    stages = built.stages()
    if isinstance(stages, Sequence):
        return list(stages)
    return [next(iter(stages))]


def double(built: Method) -> None:
    """The whole method and its teachers in float64."""
    built.double()
    for model in teachers_of(built):
        model.double()


def close(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    """Holds two states within 1e-6 of each other."""
    for name, value in one.items():
        if value.is_floating_point():
            gap = float((value - other[name]).abs().max()) if value.numel() else 0.0
            hold(gap <= 1e-6, f"{what}: {name} differs by {gap:.2g}")
