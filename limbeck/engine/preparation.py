"""What a stage trains with: its optimizers and schedules, and the method as Accelerate wraps it."""

from __future__ import annotations

import warnings
from typing import Any

from accelerate import Accelerator

from limbeck.engine.layout import Arrangement
from limbeck.engine.optimizers import build_optimizer, build_schedule, override, schedule_by_step
from limbeck.engine.process import release
from limbeck.engine.settings import Machine, Training
from limbeck.engine.stages import due
from limbeck.engine.state import Tool
from limbeck.method import Method, Stage

Tools = dict[str, Tool]


def tools_for(stage: Stage, settings: Training, *, epochs: int, steps: int, scored: bool) -> Tools:
    """Fresh optimizers and schedules of a stage, by update.

    Args:
        stage: what it trains.
        settings: of the training; an update's own stand over them.
        epochs: of the stage.
        steps: of an epoch.
        scored: a plateau is one of the validation score, or else of the loss.
    """
    tools = {}
    for update in stage.updates:
        own = override(settings, update)
        steps_due = sum(due(step, update.every, steps) for step in range(steps))
        optimizer = build_optimizer(update, settings)
        schedule = build_schedule(optimizer, own, epochs=epochs, steps=steps_due, scored=scored)
        tools[update.name] = Tool(update, optimizer, schedule, schedule_by_step(own), own.clip_norm)
    return tools


def rates(tools: Tools) -> dict[str, float]:
    """Learning rates by `update.group`."""
    return {f"{name}.{group}": rate for name, tool in tools.items() for group, rate in tool.rates().items()}


class Wrapped:
    """A method while one stage trains it: other parameters train in every stage, other graphs arise.

    Args:
        method: the method, on its device.
        accelerator: of the run.
        tools: of the stage.
        machine: its layout, and whether it compiles.

    Attributes:
        model: what is called in place of the method.
        optimizers: what steps in place of the optimizers, by update.
    """

    def __init__(self, method: Method, accelerator: Accelerator, tools: Tools, machine: Machine) -> None:
        self.method, self.accelerator = method, accelerator
        self._arrangement = Arrangement(method, machine)
        wanted = [tool.optimizer for tool in tools.values()]
        with warnings.catch_warnings():  # accelerate has no other name for it
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.model, *prepared = accelerator.prepare(method, *wanted)
        self.optimizers: dict[str, Any] = dict(zip(tools, prepared, strict=True))
        method.optimizers = {name: tool.optimizer for name, tool in tools.items()}

    def release(self) -> None:
        """Takes off what was put around the method."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        for left in ("forward", "_is_accelerate_prepared"):  # with either, it would not wrap anew
            vars(self.method).pop(left, None)
        self.model, self.optimizers = self.method, {}
        release(self.accelerator)
        self._arrangement.undo()
