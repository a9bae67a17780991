"""Where the time of a training step goes: the loop, the teacher and the taps mark their parts of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType

import torch

#: Parts of a step. `loss` is the forward of a method without its teacher and student.
PARTS = ("data", "teacher", "student", "loss", "backward", "optimizer", "other")

_EVERY = 50  # steps of which one is timed where reading the clock waits for the device

_running: ContextVar[Clock | None] = ContextVar("limbeck_clock", default=None)
_UNTIMED = nullcontext()


class Clock:
    """Splits the time of steps into parts; what begins inside another part stops that one meanwhile.

    On the processor every step is timed, at a few microseconds. A device computes while Python goes on, so
    there one step in fifty is timed, in which each part waits for the device. A step of a number of samples
    that was not seen before is left out: it warms up, and where networks are compiled it compiles.

    Args:
        device: of the training.

    Attributes:
        seconds: summed over the timed steps, by part.
        steps: how many were timed.
        samples: of the step under way, to be set before its end.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = 0
        self.samples = 0
        self._device = None if device.type == "cpu" else torch.get_device_module(device)
        self._taken: dict[str, float] = {}
        self._part, self._since = "other", 0.0
        self._seen: set[int] = set()
        self._count = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step of the loop."""
        timed = self._device is None or self._count % _EVERY == 1
        self._count += 1
        if timed:
            self._taken = dict.fromkeys(PARTS, 0.0)
            self._part, self._since = "other", self._now()
        outer = _running.set(self if timed else None)
        try:
            yield
        finally:
            _running.reset(outer)
        if timed:
            self.switch("other")
        if timed and self.samples in self._seen:
            self.steps += 1
            for name, seconds in self._taken.items():
                self.seconds[name] += seconds
        self._seen.add(self.samples)

    def switch(self, part: str) -> str:
        """Goes over to another part; returns the one that ended."""
        now, before = self._now(), self._part
        self._taken[before] += now - self._since
        self._part, self._since = part, now
        return before

    def goes_on(self, seconds: Mapping[str, float], steps: int) -> None:
        """Takes over what an earlier session timed."""
        self.seconds |= seconds
        self.steps = steps

    @property
    def part(self) -> str:
        """The part under way."""
        return self._part

    def new_stage(self) -> None:
        """Other parts train from now on: the first steps warm up again."""
        self._seen.clear()

    def _now(self) -> float:
        if self._device is not None:
            self._device.synchronize()
        return time.perf_counter()


class _Part:
    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name, self.before = clock, name, ""

    def __enter__(self) -> None:
        self.before = self.clock.switch(self.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clock.switch(self.before)


def part(name: str) -> AbstractContextManager[None]:
    """Marks what runs inside as a part of the step under way; outside of a timed step it does nothing.

    Args:
        name: one of `PARTS`. Whatever a teacher does inside is the teacher's.
    """
    if torch.compiler.is_compiling():
        return _UNTIMED
    clock = _running.get()
    if clock is None or clock.part in ("teacher", name):
        return _UNTIMED
    return _Part(clock, name)
