"""Scores of a network on a data set, the same on one process and on many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.dataset import as_dataset
from limbeck.errors import RequestError
from limbeck.task import Classification, Task, move


def evaluate(
    network: nn.Module,
    data: Any,
    task: Task | None = None,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Scores a network in eval mode and float32; its modes and buffers are as before afterwards.

    Args:
        network: the network.
        data: a `Dataset`, or what `as_dataset` takes.
        task: classification unless given.
        batch_size: samples that pass at once; it does not change the score.
        device: where to compute; by default where the network is.

    Returns:
        The figures of `task.score`, over every sample once, also on several processes.
    """
    task = task or Classification()
    return task.score(statistics(network, data, task, batch_size=batch_size, device=device))


def statistics(
    network: nn.Module,
    data: Any,
    task: Task,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> dict[str, Tensor]:
    """What `task.measure` says of every sample, in the order of the data, on the CPU."""
    dataset = as_dataset(data)
    if len(dataset) == 0:
        raise RequestError("the data set to score on is empty")
    place = torch.device(device) if device is not None else _place(network)
    rank, world = _rank()
    mine = torch.arange(len(dataset))[rank * len(dataset) // world : (rank + 1) * len(dataset) // world]
    parts: list[dict[str, Tensor]] = []
    with _scoring(network), torch.no_grad(), torch.autocast(place.type, enabled=False):
        for indices in torch.split(mine, batch_size):
            batch = move(task.batch(dataset.batch(indices)), place)
            measured = task.measure(task.call(network, batch), batch)
            parts.append({name: value.cpu() for name, value in measured.items()})
    return _joined(parts, world)


def _joined(parts: list[dict[str, Tensor]], world: int) -> dict[str, Tensor]:
    if world > 1:
        gathered: list[Any] = [None] * world
        torch.distributed.all_gather_object(gathered, parts)
        parts = [part for theirs in gathered for part in theirs]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@contextmanager
def _scoring(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _rank() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _place(network: nn.Module) -> torch.device:
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device
