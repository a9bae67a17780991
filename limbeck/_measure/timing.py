"""Measuring what a network costs: parameters, bytes, latency. Figures carry how they were taken."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.errors import RequestError

#: Calls that are timed, and calls before that are not.
RUNS, WARMUPS = 200, 20
_SLOW = 0.05  # seconds of a call from which fewer are timed


@dataclass(frozen=True)
class Latency:
    """The time of one call, with all that it depends on.

    Attributes:
        median: milliseconds of one call; `p95`: 95 of 100 calls took no longer.
        runs: calls that were timed, after `warmups` that were not.
        batch: samples a call; `threads`: within an operation.
        runtime: what ran the network, as "torch 2.14.1"; `processor`: on what.
    """

    median: float
    p95: float
    runs: int
    warmups: int
    batch: int
    threads: int
    runtime: str
    processor: str

    def stored(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.median:.2f} ms (p95 {self.p95:.2f}; {self.runs} runs after {self.warmups} warm-ups, "
            f"batch {self.batch}, {self.threads} thread{'s' * (self.threads != 1)}, {self.runtime}, "
            f"{self.processor})"
        )


def parameters(network: nn.Module) -> int:
    """The number of parameters; those that are tied count once."""
    seen = {(p.data_ptr(), p.shape): p.numel() for p in network.parameters() if p.numel()}
    return sum(seen.values())


def file_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder.

    Raises:
        RequestError: there is nothing at the path.
    """
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        raise RequestError(f"there is no file {path} to measure")
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())


def latency(
    call: Callable[[], object],
    *,
    runs: int = 200,
    warmups: int = 20,
    batch: int = 1,
    threads: int = 1,
    runtime: str | None = None,
) -> Latency:
    """The time of a call, see `latencies`."""
    return latencies(
        {"": call}, runs=runs, warmups=warmups, batch=batch, threads=threads, runtimes={"": runtime}
    )[""]


def latencies(
    calls: Mapping[str, Callable[[], object]],
    *,
    runs: int = 200,
    warmups: int = 20,
    batch: int = 1,
    threads: int = 1,
    runtimes: Mapping[str, str | None] | None = None,
) -> dict[str, Latency]:
    """Times several calls in turn, so that whatever else the machine does meets all of them alike.

    Args:
        calls: by name; each runs one batch and returns when it is done.
        runs: timed calls of each, after `warmups`.
        warmups: calls of each before, which are not timed.
        batch: samples a call, for the record.
        threads: of torch within an operation meanwhile; other runtimes are set up by the caller.
        runtimes: what runs each call; torch unless given.

    Returns:
        By name; times in milliseconds.
    """
    if runs < 1 or warmups < 0:
        raise RequestError(f"{runs} runs after {warmups} warm-ups; needed at least 1 after at least 0")
    times: dict[str, list[float]] = {name: [] for name in calls}
    with _threads(threads), torch.no_grad():
        for call in calls.values():
            for _ in range(warmups):
                call()
        for _ in range(runs):
            for name, call in calls.items():
                begun = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begun) * 1000)
    own = f"torch {torch.__version__.split('+')[0]}"
    return {
        name: Latency(
            statistics.median(values),
            _percentile(values, 0.95),
            runs,
            warmups,
            batch,
            threads,
            (runtimes or {}).get(name) or own,
            processor(),
        )
        for name, values in times.items()
    }


def in_turn(
    calls: Mapping[str, Callable[[], object]],
    *,
    threads: int = 1,
    runtimes: Mapping[str, str | None] | None = None,
) -> dict[str, Latency]:
    """`latencies` of one sample with as many runs as the time allows: 200 after 20, or 20 after 2."""
    slow = max(_seconds(call) for call in calls.values()) > _SLOW
    runs, warmups = (RUNS // 10, WARMUPS // 10) if slow else (RUNS, WARMUPS)
    return latencies(calls, runs=runs, warmups=warmups, threads=threads, runtimes=runtimes)


def _seconds(call: Callable[[], object]) -> float:
    """The quickest of a few calls: what else the machine does makes some of them slow."""
    taken = []
    with torch.no_grad():
        for _ in range(4):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    return min(taken)


def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * round(share * 100) // 100) - 1, 0)]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
