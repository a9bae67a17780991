"""The processes of a run: one Accelerator, and sums over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn

from limbeck.engine.settings import Machine

_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator_for(machine: Machine) -> Accelerator:
    """An accelerator of its own for one run; the process group, if there is one, is kept.

    Buffers are not broadcast (each process keeps its batch statistics until they are averaged), and
    parameters without gradient are looked for: updates and stages use different parts of a method.
    """
    AcceleratorState._reset_state()  # accelerate refuses a second precision in one process
    GradientState._reset_state()
    handler = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    return Accelerator(
        cpu=machine.device == "cpu", mixed_precision=_PRECISION[machine.precision], kwargs_handlers=[handler]
    )


def release(accelerator: Accelerator) -> None:
    """Lets go of what was prepared. On one processor without the garbage collection, 0.1 to 0.4 s a stage.

    Elsewhere it is worth it: a data-parallel wrapper keeps hooks on the parameters until it is collected.
    """
    if accelerator.num_processes > 1 or accelerator.device.type != "cpu":
        accelerator.free_memory()
    else:
        accelerator._models, accelerator._optimizers = [], []


def summed(accelerator: Accelerator, values: list[float]) -> list[float]:
    """Each value summed over the processes, in float64."""
    if accelerator.num_processes == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    torch.distributed.all_reduce(total)
    return [float(value) for value in total.tolist()]


def averaged(accelerator: Accelerator, means: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Means of terms, each averaged over the processes."""
    own = [float(value) for value in means.values()]
    world = accelerator.num_processes
    return {name: total / world for name, total in zip(means, summed(accelerator, own), strict=True)}


def average_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Floating buffers (running statistics) become their mean over the processes."""
    if accelerator.num_processes == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= accelerator.num_processes


def gathered(accelerator: Accelerator, value: Any) -> list[Any]:
    """The value of every process, in order of rank."""
    if accelerator.num_processes == 1:
        return [value]
    values: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(values, value)
    return values
