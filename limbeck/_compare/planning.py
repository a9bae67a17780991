"""What a comparison will cost: every line of the table rehearsed once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck._compare.cells import Cell
from limbeck._compare.entries import Entry
from limbeck._run.folder import RunFolder
from limbeck._run.job import plan_of
from limbeck._run.plan import MOST_LINES, Part, Plan
from limbeck._run.session import open_session, prepare
from limbeck._show import figures
from limbeck.recipe import Recipe

_START = 4.0  # seconds until a fresh process has its libraries


@dataclass(frozen=True)
class Rehearsed:
    """A line of the table that took its dry steps.

    Args:
        plan: of its run, with the training of its teachers.
        trained: the numbers of the teachers that are trained first.
        cache: what tells its teachers' stored answers from others; None where none are stored.
        seconds: that a run takes before its first step.
    """

    plan: Plan
    trained: tuple[int, ...]
    cache: tuple[Any, ...] | None
    seconds: float

    def part(self, name: str) -> Part | None:
        """A phase of the plan."""
        return next((part for part in self.plan.parts if part.name == name), None)

    def of(self, *names: str) -> float:
        """Planned seconds of phases."""
        return sum(part.seconds or 0.0 for part in self.plan.parts if part.name in names)

    def teacher(self, number: int) -> float:
        """Planned seconds of the training of a teacher."""
        return self.of("teacher" if self.part("teacher") else f"teacher {number}")


def rehearse(entry: Entry, threads: int | None) -> Rehearsed:
    """Builds everything of a line once and takes a few steps.

    Args:
        entry: the line.
        threads: that one run may take; None: as its recipe says.

    Raises:
        RequestError: its recipe, data or networks are wrong.
    """
    began = time.monotonic()
    prepared = prepare(open_session(as_run(entry.recipe, threads)))
    plan = plan_of(prepared, RunFolder(Path(entry.name)), "")
    caching = prepared.caching
    specs = [spec.model_dump_json() for spec in prepared.session.recipe.all_teachers()]
    key = (*specs, caching.views, caching.layers, str(caching.store)) if caching.on else None
    return Rehearsed(plan, tuple(prepared.trained), key, time.monotonic() - began + _START)


def as_run(recipe: Recipe, threads: int | None) -> Recipe:
    """A recipe as a cell runs it, but for its teacher; it still knows its places."""
    machine = recipe.machine
    if threads is not None and machine.threads == "auto":
        machine = machine.model_copy(update={"threads": threads})
    export = recipe.export.model_copy(update={"to": []})
    return recipe.model_copy(update={"alone": False, "machine": machine, "export": export})


def seconds_of(cells: Iterable[Cell], rehearsed: Mapping[str, Rehearsed]) -> dict[str, float]:
    """Planned seconds by name of the cell; the first that reads a cache also writes it."""
    cells = list(cells)
    found: dict[str, float] = {}
    written: set[Any] = set()
    for cell in cells:
        if not cell.entry:
            asks = next(other for other in cells if cell.name in other.needs)
            line = rehearsed[asks.entry]
            found[cell.name] = line.seconds + line.teacher(asks.needs.index(cell.name))
            continue
        line = rehearsed[cell.entry]
        found[cell.name] = line.seconds + line.of("distil", "finish")
        if line.cache is not None and line.cache not in written:
            written.add(line.cache)
            found[cell.name] += line.of("cache")
    return found


def plan_for(
    folder: str,
    entries: Sequence[Entry],
    cells: Sequence[Cell],
    rehearsed: Mapping[str, Rehearsed],
    jobs: int,
    notes: Sequence[str],
) -> Plan:
    """The plan of a comparison.

    Args:
        folder: of the comparison.
        entries: the lines of the table.
        cells: all runs.
        rehearsed: lines that have runs to do.
        jobs: how many run at once.
        notes: what is to be said beside.
    """
    todo = [cell for cell in cells if not cell.finished]
    planned = seconds_of(todo, rehearsed)
    first = next(iter(rehearsed.values())).plan
    parts = [part for part in first.parts if part.name == "data"]
    parts += [
        Part(cell.name, _teacher_line(cell), planned.get(cell.name, 0.0)) for cell in cells if not cell.entry
    ]
    parts += [_line(entry, cells, planned, rehearsed) for entry in entries]
    done = len(cells) - len(todo)
    before = f", {done} done already" if done else ""
    beside = f", {jobs} at once" if jobs > 1 else ""
    parts.append(Part("runs", f"{len(cells)}{before}{beside}; test once each, at their end"))
    if jobs > 1:
        parts = [Part(p.name, p.about, None if p.seconds is None else p.seconds / jobs) for p in parts]
    plans = [line.plan for line in rehearsed.values()]
    memory = max((plan.memory or 0 for plan in plans), default=0) * jobs
    disk = sum(rehearsed[cell.entry].plan.disk for cell in todo if cell.entry)
    return Plan(
        head=first.head.partition("   seed ")[0],
        folder=folder,
        kept="goes on where it stopped" if done else "",
        parts=parts,
        memory=memory or None,
        disk=disk,
        same=first.same,
        chosen=first.chosen,
        notes=[*notes, *dict.fromkeys(note for plan in plans for note in plan.notes)],
        limits=first.limits,
        most=MOST_LINES + len(entries),
    )


def _teacher_line(cell: Cell) -> str:
    spec = cell.recipe.all_students()[0]
    epochs = figures.count(cell.recipe.train.epochs, "epoch")
    done = ", done already" if cell.finished else ""
    return f"{spec.model}, {epochs}, once for all seeds{done}"


def _line(
    entry: Entry,
    cells: Sequence[Cell],
    planned: Mapping[str, float],
    rehearsed: Mapping[str, Rehearsed],
) -> Part:
    """What the plan says of a line of the table."""
    own = [cell for cell in cells if cell.entry == entry.name]
    left = [cell for cell in own if not cell.finished]
    done = f", {len(own) - len(left)} done already" if len(left) < len(own) else ""
    seeds = f"{figures.count(len(own), 'seed')}{done}"
    line = rehearsed.get(entry.name)
    about = line.part("distil") if line is not None else None
    what = about.about if about is not None else entry.method
    return Part(
        entry.name,
        f"{what.removeprefix('the same student ')}, {seeds}",
        sum(planned.get(c.name, 0.0) for c in left),
    )
