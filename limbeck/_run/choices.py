"""How a run computes where the recipe leaves it open: precision, layout of pictures, compilation.

All but the compilation is decided by rule, so that the same recipe decides the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from limbeck._fast.gain import gains_from_bf16
from limbeck._fast.layout import has_pictures, refuses_channels_last
from limbeck._fast.processor import can_compile, compiler, gains_by_compiling
from limbeck._run.live import LONG
from limbeck.engine.settings import Machine
from limbeck.errors import RequestError
from limbeck.recipe import Recipe
from limbeck.task import Task

_NO_COMPILER = f"there is no C++ compiler ({compiler()})"


@dataclass(frozen=True)
class Choice:
    """What "auto" became.

    Args:
        machine: with precision, layout and compilation.
        why: the reason of the precision; empty where the recipe gave it.
        notes: what was not done, and why, a sentence each.
    """

    machine: Machine
    why: str = ""
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """`bf16 and channels_last (this processor has AVX512-BF16); fp32: --set machine.precision=fp32`."""
        done: list[str] = [self.machine.precision]
        if self.machine.layout == "channels_last":
            done.append("channels_last")
        if self.machine.compile:
            done.append("compiled")
        said = f"{', '.join(done[:-1])} and {done[-1]}" if len(done) > 1 else done[0]
        if self.why:
            said += f" ({self.why})"
        other = self.why and self.machine.precision != "fp32"
        return f"{said}; fp32: --set machine.precision=fp32" if other else said


def settle(
    machine: Machine,
    recipe: Recipe,
    students: Sequence[nn.Module],
    others: Sequence[nn.Module],
    batch: Mapping[str, Any],
    task: Task,
) -> Choice:
    """Precision and layout of a run.

    Args:
        machine: as chosen so far.
        recipe: what it leaves open is decided.
        students: the networks whose gain decides the precision.
        others: teachers that are trained before, in the same layout.
        batch: training samples in normal form.
        task: how they enter the networks.
    """
    given = recipe.machine
    why, notes = "", list[str]()
    if given.precision == "auto":
        said = [gains_from_bf16(student, batch, task, machine.device or "cpu") for student in students]
        gains, why = next((each for each in said if not each[0]), said[0])
        machine = replace(machine, precision="bf16" if gains else "fp32")
    if given.layout == "auto" and has_pictures(batch) and _kind(machine) in ("cpu", "cuda"):
        for role, network in [*(("student", n) for n in students), *(("teacher", n) for n in others)]:
            reason = refuses_channels_last(network, batch, task, training=True)
            if reason:
                notes.append(f"contiguous, not channels_last: the {role} {reason}")
        machine = replace(machine, layout="contiguous" if notes else "channels_last")
    return Choice(machine, why, tuple(dict.fromkeys(notes)))


def _kind(machine: Machine) -> str:
    return (machine.device or "cpu").partition(":")[0]


def turned_back(choice: Choice, recipe: Recipe, phase: str) -> Choice:
    """A run in whose dry steps a phase failed in channels_last, and did not without.

    Raises:
        RequestError: the recipe asks for this layout.
    """
    if recipe.machine.layout == "channels_last":
        raise RequestError(
            f'the {phase} phase fails in machine.layout = "channels_last" and not without',
            fix='layout = "auto"',
            where=recipe.where("machine", "layout", value=True),
        )
    note = f"contiguous, not channels_last: the {phase} phase fails in it"
    return replace(choice, machine=replace(choice.machine, layout="contiguous"), notes=(*choice.notes, note))


def compilation(choice: Choice, recipe: Recipe, seconds: Iterable[float]) -> Choice:
    """Whether the networks are compiled: written, or where a phase is long enough and the device gains.

    A processor without AMX gains a hundredth by it.

    Args:
        choice: of all else.
        recipe: what it says.
        seconds: of the phases, as planned.
    """
    device, long = choice.machine.device or "cpu", max(seconds, default=0.0) >= LONG
    if recipe.machine.compile != "auto" or not long or not gains_by_compiling(device):
        return choice
    if not can_compile(device):
        return replace(choice, notes=(*choice.notes, f"not compiled: {_NO_COMPILER}"))
    return replace(choice, machine=replace(choice.machine, compile=True))


def check_compiler(machine: Machine, recipe: Recipe) -> None:
    """Refuses to compile where that cannot be.

    Raises:
        RequestError: the recipe asks for it, and a compiler is missing.
    """
    if machine.compile and not can_compile(machine.device or "cpu"):
        raise RequestError(
            f"machine.compile is true, and {_NO_COMPILER}",
            fix="install it, or compile = false",
            where=recipe.where("machine", "compile", value=True),
        )
