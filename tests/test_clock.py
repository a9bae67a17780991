"""The split of a step's time. Sleeping gives lower bounds, and parts that exclude each other an upper one."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from limbeck import Teacher
from limbeck._clock import PARTS, Clock, part
from limbeck.taps import Taps
from limbeck.task import Classification

CPU = torch.device("cpu")


class Slow(nn.Module):
    """A network that takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.layer = seconds, nn.Linear(2, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.layer(inputs)


def timed(clock: Clock, *, samples: int = 4) -> None:
    """A step in which every part sleeps, some inside others."""
    with clock.step():
        clock.samples = samples
        with part("data"):
            time.sleep(0.002)
        with part("loss"):
            with part("teacher"), part("student"):
                time.sleep(0.004)
            with part("student"), part("student"):
                time.sleep(0.003)
            time.sleep(0.001)


def test_parts_exclude_each_other_and_a_teachers_own_calls_are_the_teachers():
    clock = Clock(CPU)
    timed(clock)
    began = time.perf_counter()
    for _ in range(3):
        timed(clock)
    took = time.perf_counter() - began
    assert clock.steps == 3
    for name, seconds in {"data": 0.002, "teacher": 0.004, "student": 0.003, "loss": 0.001}.items():
        assert clock.seconds[name] >= 3 * seconds
    assert clock.seconds["backward"] == clock.seconds["optimizer"] == 0
    assert sum(clock.seconds.values()) <= took
    assert list(clock.seconds) == list(PARTS)


def test_the_first_step_of_each_size_is_left_out_in_every_stage():
    clock = Clock(CPU)
    for samples in (4, 4, 4, 3, 4, 3):
        timed(clock, samples=samples)
    assert clock.steps == 4
    clock.new_stage()
    timed(clock)
    assert clock.steps == 4


def test_outside_of_a_step_nothing_is_timed_and_an_error_leaves_nothing_running():
    clock = Clock(CPU)
    timed(clock)
    before = dict(clock.seconds)
    with pytest.raises(KeyError), clock.step(), part("loss"):
        raise KeyError
    with part("student"):
        time.sleep(0.001)
    assert clock.seconds == before
    assert clock.steps == 0


def test_a_device_is_waited_for_in_one_step_of_fifty():
    waited = []

    class Device:
        def synchronize(self) -> None:
            waited.append(clock.steps)

    clock = Clock(CPU)
    clock._device = Device()
    for _ in range(103):
        with clock.step():
            clock.samples = 4
            with part("student"):
                pass
    assert clock.steps == 3
    assert len(waited) == 3 * 4  # at both ends of the step and of the part


def test_teachers_and_taps_mark_themselves():
    clock, task = Clock(CPU), Classification()
    teacher, student = Teacher(Slow(0.004)), Slow(0.003)
    taps = Taps(student, ["layer"], task=task, trainable=True)
    batch = {"inputs": torch.zeros(4, 2)}
    taps(batch)  # looks once at itself
    for _ in range(2):
        with clock.step():
            clock.samples = 4
            teacher(batch)
            taps(batch)
            task.call(student, batch)
    assert clock.seconds["teacher"] >= 0.004
    assert clock.seconds["student"] >= 0.006


def test_what_is_marked_still_compiles_whole():
    student, task = nn.Linear(2, 3), Classification()

    def step(inputs: torch.Tensor) -> torch.Tensor:
        return task.call(student, {"inputs": inputs}).sum()

    compiled = torch.compile(step, backend="eager", fullgraph=True)
    inputs = torch.ones(4, 2)
    torch.testing.assert_close(compiled(inputs), step(inputs))
