"""Training loops that take a step each in turn, so that all meet the same minute of the machine.

Every loop runs in a process of its own and waits after each step; only the one whose turn it is computes. So
a loop may be anybody's whole one, with whatever it does between two steps, and need not be cut into pieces.
Processes, not threads: with several threads that compute, OpenMP's workers wait in another way than in a
training run.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from torch import nn

#: Seconds between two turns: the workers that computed the last step stop waiting for more.
REST = 0.02


class Told:
    """Hears what a training loop does."""

    def step(self, loss: float) -> None:
        """A step was taken."""

    def epoch(self, student: nn.Module) -> None:
        """An epoch is over."""


class _Waiting(Told):
    """Tells the parent of each step, and waits for the next turn."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.since = 0.0

    def wait(self) -> None:
        self.pipe.recv()
        self.since = time.perf_counter()

    def step(self, loss: float) -> None:
        self.pipe.send((time.perf_counter() - self.since, loss))
        self.wait()


def _run(body: Callable[[Told], None], pipe: Connection) -> None:
    waiting = _Waiting(pipe)
    try:
        waiting.wait()
        body(waiting)
    except EOFError:  # no further turn comes
        pass
    finally:
        pipe.close()


class Turn:
    """A loop that waits after each step.

    Args:
        body: the loop; it calls `step` of what it is given after each step. It is pickled.
    """

    def __init__(self, body: Callable[[Told], None]) -> None:
        # The server of forks never computes: a fork of a process that has used OpenMP would hang in it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.speed.loops"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(body, theirs))
        self._process.start()
        theirs.close()

    def take(self) -> tuple[float, float]:
        """Lets the loop take a step; its seconds, with all since the last one, and its loss.

        Raises:
            RuntimeError: the loop has ended; why it failed stands on the error stream.
        """
        try:
            self._pipe.send(None)
            seconds, loss = self._pipe.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError("a loop ended before its last turn") from error
        return seconds, loss

    def end(self) -> None:
        """Ends the loop, which waits."""
        self._pipe.close()
        self._process.join()


def in_turn(
    bodies: Mapping[str, Callable[[Told], None]], rounds: int, warmup: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Runs loops a step each in turn, in another order every round.

    Args:
        bodies: the loops by name; they are pickled.
        rounds: those that count.
        warmup: rounds before them.

    Returns:
        Seconds of each counted step, and the loss of the first step, by name.
    """
    turns: dict[str, Turn] = {}
    seconds: dict[str, list[float]] = {name: [] for name in bodies}
    losses: dict[str, float] = {}
    order, shuffled = list(bodies), random.Random(0)
    try:
        for name, body in bodies.items():
            turns[name] = Turn(body)
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
