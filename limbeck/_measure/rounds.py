"""Latencies of several models in rounds, in turn, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from limbeck._measure.timing import Latency, latencies

ROUNDS = 5
#: Spread of the rounds from which a figure is called noisy.
NOISY = 0.10
_SECONDS = 0.3  # that one model's round takes at most, roughly
_FEWEST, _MOST = 5, 40

#: By batch size and threads: a call of one batch.
Maker = Callable[[int, int], Callable[[], object]]


@dataclass(frozen=True)
class Rounds:
    """The latency of a batch over several rounds.

    Attributes:
        latency: of all rounds: median of their medians, largest p95.
        spread: largest less smallest median of the rounds, as a part of the median.
    """

    latency: Latency
    spread: float

    @property
    def noisy(self) -> bool:
        """Whether the rounds differ too much."""
        return self.spread > NOISY

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return self.latency.batch / self.latency.median * 1000

    def stored(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            **self.latency.stored(),
            "rounds": ROUNDS,
            "spread": self.spread,
            "noisy": self.noisy,
            "throughput": self.throughput,
        }


def in_rounds(
    makers: Mapping[str, Maker], runtimes: Mapping[str, str], batches: Iterable[int], threads: Iterable[int]
) -> dict[str, list[Rounds]]:
    """Times all models by batch size and threads; in each round they take turns.

    Args:
        makers: by name.
        runtimes: what runs each.
        batches: sizes.
        threads: within an operation.
    """
    found: dict[str, list[Rounds]] = {name: [] for name in makers}
    for batch in batches:
        for number in dict.fromkeys(threads):
            calls = {name: make(batch, number) for name, make in makers.items()}
            for name, rounds in _cell(calls, runtimes, batch, number).items():
                found[name].append(rounds)
    return found


def _cell(
    calls: Mapping[str, Callable[[], object]], runtimes: Mapping[str, str], batch: int, threads: int
) -> dict[str, Rounds]:
    first = latencies(calls, runs=3, warmups=2, threads=threads)
    slowest = max(each.median for each in first.values()) / 1000
    runs = max(_FEWEST, min(_MOST, int(_SECONDS / max(slowest, 1e-6))))
    rounds = [
        latencies(calls, runs=runs, warmups=2, batch=batch, threads=threads, runtimes=runtimes)
        for _ in range(ROUNDS)
    ]
    return {name: _joined([each[name] for each in rounds]) for name in calls}


def _joined(rounds: list[Latency]) -> Rounds:
    medians = [each.median for each in rounds]
    median, first = statistics.median(medians), rounds[0]
    joined = Latency(
        median,
        max(each.p95 for each in rounds),
        sum(each.runs for each in rounds),
        sum(each.warmups for each in rounds),
        first.batch,
        first.threads,
        first.runtime,
        first.processor,
    )
    return Rounds(joined, (max(medians) - min(medians)) / median)
