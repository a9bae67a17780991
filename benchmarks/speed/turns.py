"""Training loops that take a step each in turn, so that all meet the same minute of the machine.

Every loop runs in a thread of its own and stops after each step; only the one whose turn it is computes. So a
loop may be anybody's whole one, with whatever it does between two steps, and need not be cut into pieces.
"""

from __future__ import annotations

import queue
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import nn

#: Seconds between two turns: the threads that computed the last step stop waiting for more.
REST = 0.02


class Told:
    """Hears what a training loop does."""

    def step(self, loss: float) -> None:
        """A step was taken."""

    def epoch(self, student: nn.Module) -> None:
        """An epoch is over."""


class _Over(Exception):
    """No further turn comes."""


class Turn(Told):
    """A loop that waits after each step.

    Args:
        body: the loop; it calls `step` of what it is given after each step.
    """

    def __init__(self, body: Callable[[Told], None]) -> None:
        self._go = threading.Semaphore(0)
        self._taken: queue.SimpleQueue[tuple[float, float] | None] = queue.SimpleQueue()
        self._ending = False
        self._since = 0.0
        self._thread = ThreadPoolExecutor(1)
        self._done: Future[None] = self._thread.submit(self._run, body)
        self._done.add_done_callback(lambda _: self._taken.put(None))

    def _run(self, body: Callable[[Told], None]) -> None:
        try:
            self._wait()
            body(self)
        except _Over:
            pass

    def _wait(self) -> None:
        self._go.acquire()
        if self._ending:
            raise _Over
        self._since = time.perf_counter()

    def step(self, loss: float) -> None:
        """Called by the loop: waits for the next turn."""
        self._taken.put((time.perf_counter() - self._since, loss))
        self._wait()

    def take(self) -> tuple[float, float]:
        """Lets the loop take a step; its seconds, with all since the last one, and its loss.

        Raises:
            RuntimeError: the loop has ended; what it raised itself comes as it is.
        """
        self._go.release()
        taken = self._taken.get()
        if taken is None:
            self._done.result()
            raise RuntimeError("the loop ended before its last turn")
        return taken

    def end(self) -> None:
        """Ends the loop, which waits."""
        self._ending = True
        self._go.release()
        self._thread.shutdown()


def in_turn(
    bodies: Mapping[str, Callable[[Told], None]], rounds: int, warmup: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Runs loops a step each in turn, in another order every round.

    Args:
        bodies: the loops by name.
        rounds: those that count.
        warmup: rounds before them.

    Returns:
        Seconds of each counted step, and the loss of the first step, by name.
    """
    turns = {name: Turn(body) for name, body in bodies.items()}
    seconds: dict[str, list[float]] = {name: [] for name in bodies}
    losses: dict[str, float] = {}
    order, shuffled = list(bodies), random.Random(0)
    try:
        for number in range(warmup + rounds):
            shuffled.shuffle(order)
            for name in order:
                time.sleep(REST)
                taken, loss = turns[name].take()
                losses.setdefault(name, loss)
                if number >= warmup:
                    seconds[name].append(taken)
    finally:
        for turn in turns.values():
            turn.end()
    return seconds, losses


def ratios(seconds: Mapping[str, list[float]], to: str) -> dict[str, Any]:
    """Medians, their ratios to one of them, and the quartiles of the ratios of each round."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    spread = {}
    for name, values in seconds.items():
        by_round = [own / other for own, other in zip(values, seconds[to], strict=True)]
        low, _, high = statistics.quantiles(by_round, n=4) if len(by_round) > 1 else by_round * 3
        spread[name] = [round(low, 3), round(high, 3)]
    return {
        "ratio": {name: round(value / medians[to], 4) for name, value in medians.items()},
        "seconds": {name: round(value, 6) for name, value in medians.items()},
        "spread": spread,
    }
