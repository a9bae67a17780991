"""Running a network in train mode without touching its running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def keep_statistics(*networks: nn.Module) -> Iterator[None]:
    """Whatever networks do to their buffers inside is undone: running statistics, counters, all of them.

    For a network in train mode that only gives targets: it uses the statistics of the batch, as it does
    when it is updated, but its running ones stay bit for bit. Modes are left as they are.

    Inside, the networks work on copies of their buffers (a copy of each, small beside a forward). The
    originals are not written to, so a graph that was recorded before still runs backward.

    >>> network = nn.BatchNorm1d(2)
    >>> with keep_statistics(network):
    ...     _ = network(torch.ones(4, 2))
    >>> network.running_mean.tolist(), int(network.num_batches_tracked)
    ([0.0, 0.0], 0)
    """
    held: list[tuple[nn.Module, str, Tensor]] = []
    copies: dict[int, Tensor] = {}
    for module in {id(m): m for network in networks for m in network.modules()}.values():
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            held.append((module, name, buffer))
            copies.setdefault(id(buffer), buffer.clone())
    try:
        for module, name, buffer in held:
            module._buffers[name] = copies[id(buffer)]
        yield
    finally:
        for module, name, buffer in held:
            module._buffers[name] = buffer
