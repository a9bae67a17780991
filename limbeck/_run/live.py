"""Teachers that answer live in a run: what makes them faster, decided by rule and checked before use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from limbeck._fast.choosing import Fast, wanted
from limbeck._fast.processor import can_compile, gains_by_compiling
from limbeck._run.caching import Caching, Repeating
from limbeck.task import move
from limbeck.teacher import Teacher

if TYPE_CHECKING:
    from limbeck._run.session import Session

#: Seconds of a phase from which compiling pays: it takes up to 40 of them.
LONG = 1800.0
_FROZEN = ("outputs", "weights", "live")


def steps(session: Session, teachers: Sequence[nn.Module]) -> Fast:
    """The steps that the teachers take, as the recipe names them or by rule; compiling is added later."""
    given = session.recipe.machine.teacher
    if session.chosen.method.card.teacher not in _FROZEN:
        return Fast()
    if given != "auto":
        return Fast.of(given)
    device, task = session.machine.device or "cpu", session.splits.task
    return wanted(teachers[0], task.batch(session.example()), task, device)


def compiled_where_long(session: Session, fast: Fast, seconds: float) -> Fast:
    """The same steps, and compiling where the phase is long enough and the device gains by it."""
    if session.recipe.machine.teacher != "auto" or not fast.names() or seconds < LONG:
        return fast
    device = session.machine.device or "cpu"
    return replace(fast, compile=gains_by_compiling(device) and can_compile(device))


def rehearsed(
    session: Session, teachers: Sequence[nn.Module], caching: Caching, fast: Fast
) -> list[nn.Module | Teacher]:
    """What stands for the teachers in the dry steps that tell what a run will take."""
    task = session.splits.task
    if caching.on:
        return [Repeating(network, task=task) for network in teachers]
    return answering(session, teachers, fast)


def answering(session: Session, teachers: Sequence[nn.Module], fast: Fast) -> list[nn.Module | Teacher]:
    """The live teachers in their faster form; networks as they are where the method trains them."""
    card = session.chosen.method.card
    if card.teacher not in _FROZEN or not fast.names():
        return list(teachers)
    return [Teacher(network, task=session.splits.task, fast=fast) for network in teachers]


def settled(session: Session, sources: Sequence[nn.Module | Teacher]) -> Fast | None:
    """Compares each live teacher's faster form with the plain one, now, and says which steps stay.

    All samples are the run's first ones, so a resume comes to the same. None where no teacher is faster.
    """
    quick = [source for source in sources if isinstance(source, Teacher)]
    for teacher in quick:
        teacher(move(teacher.task.batch(session.example()), session.machine.device or "cpu"))
    names = [set(teacher.fast.names()) for teacher in quick]
    return Fast.of(sorted(set.intersection(*names))) if names else None
