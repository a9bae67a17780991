"""A comparison from its recipes to its leaderboard: plan, runs, files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limbeck._compare import leaderboard, tables
from limbeck._compare.cells import Cell, cells_of, identity
from limbeck._compare.comparison import Comparison
from limbeck._compare.entries import Entry, differences, entries_of
from limbeck._compare.planning import Rehearsed, plan_for, rehearse, seconds_of
from limbeck._compare.running import Pool
from limbeck._run.folder import RUNS, RunFolder
from limbeck._run.job import default_screen
from limbeck._run.plan import Plan
from limbeck._run.screen import Screen
from limbeck._show import figures
from limbeck.engine.interruption import Interruption
from limbeck.errors import RequestError
from limbeck.recipe import Recipe

_STATE, _BOARD = "comparison.json", "leaderboard"
SCHEMA = 1
_RESTORE = "restore it from a copy, or --output with another folder"
#: Where no run has finished, so nothing is known of the scores.
_UNKNOWN = {"split": "test", "kind": "classes", "name": "score", "samples": 0}


@dataclass(frozen=True)
class Asked:
    """A comparison as it was asked for.

    Args:
        entries: the lines of the table; `seeds`: of each.
        folder: of the comparison.
        jobs: how many runs at once.
    """

    entries: Sequence[Entry]
    seeds: Sequence[int]
    folder: RunFolder
    jobs: int

    @property
    def threads(self) -> int | None:
        """Threads of one run, where several share the machine."""
        return max(torch.get_num_threads() // self.jobs, 1) if self.jobs > 1 else None

    @property
    def state(self) -> dict[str, Any]:
        """What comparison.json knows of each line by its identity: which of its teachers are trained."""
        found = self.folder.read_sealed(_STATE, _RESTORE)
        return {} if found is None else dict(found["lines"])


def compare(
    recipes: Sequence[tuple[Recipe, str]],
    *,
    seeds: Sequence[int],
    output: str | Path | None,
    jobs: int,
    dry_run: bool,
    screen: Screen | None,
) -> Comparison:
    """See `limbeck.compare`."""
    screen = screen or default_screen()
    entries = entries_of(recipes)
    names = "-".join(recipe.name for recipe, _ in recipes)[:80].strip("-.")
    asked = Asked(entries, seeds, RunFolder(Path(output) if output else RUNS / f"compare-{names}"), jobs)
    _check_folder(asked.folder)
    with ExitStack() as held:
        there = asked.folder.path.is_dir()
        if there and not dry_run:
            held.enter_context(asked.folder.locked())
        trained, cells, rehearsed = _prepared(asked)
        plan = _plan(asked, cells, rehearsed)
        if dry_run:
            return Comparison(asked.folder.path, plan=plan)
        if plan is not None:
            screen.say(plan.text())
        if not there:
            held.enter_context(asked.folder.locked())
        lines = {identity(entry): {"trained": list(trained[entry.name])} for entry in entries}
        asked.folder.write_sealed(_STATE, {"lines": {**asked.state, **lines}})
        return Comparison(asked.folder.path, _run(asked, cells, rehearsed, screen), plan)


def _check_folder(folder: RunFolder) -> None:
    """Refuses a folder that holds something else."""
    path = folder.path
    if not path.exists() or (path / _STATE).is_file():
        return
    if folder.is_run:
        raise RequestError(f"{folder} holds a run of distill", fix="--output with another folder")
    if not path.is_dir() or {entry.name for entry in path.iterdir()} - {".lock", f".{_STATE}.draft"}:
        raise RequestError(
            f"{folder} is there and is no comparison of limbeck", fix="--output with another folder"
        )


def _prepared(asked: Asked) -> tuple[dict[str, Sequence[int]], list[Cell], dict[str, Rehearsed]]:
    """Which teachers are trained, all runs, and the lines that were rehearsed: those with runs to do."""
    known, rehearsed = asked.state, dict[str, Rehearsed]()
    trained: dict[str, Sequence[int]] = {}
    for entry in asked.entries:
        stored = known.get(identity(entry))
        if stored is None:
            rehearsed[entry.name] = rehearse(entry, asked.threads)
        trained[entry.name] = stored["trained"] if stored else rehearsed[entry.name].trained
    cells = cells_of(asked.entries, asked.seeds, asked.folder.path, trained, asked.threads)
    for cell in cells:
        cell.check()
    todo = {cell.entry for cell in cells if not cell.finished}
    for entry in asked.entries:
        if entry.name in todo and entry.name not in rehearsed:
            rehearsed[entry.name] = rehearse(entry, asked.threads)
    return trained, cells, rehearsed


def _plan(asked: Asked, cells: Sequence[Cell], rehearsed: Mapping[str, Rehearsed]) -> Plan | None:
    if not any(not cell.finished for cell in cells) or not rehearsed:
        return None
    notes = differences(asked.entries)
    return plan_for(str(asked.folder), asked.entries, cells, rehearsed, asked.jobs, notes)


def _run(
    asked: Asked, cells: Sequence[Cell], rehearsed: Mapping[str, Rehearsed], screen: Screen
) -> dict[str, Any]:
    """Runs what is missing; the leaderboard is written after every run."""
    todo = [cell for cell in cells if not cell.finished]
    interruption = Interruption()
    caches = {cell.name: rehearsed[cell.entry].cache for cell in todo if cell.entry}

    def write(failed: Mapping[str, str]) -> dict[str, Any]:
        board = _board(asked, cells, failed)
        asked.folder.write(f"{_BOARD}.json", json.dumps(board, indent=1) + "\n")
        asked.folder.write(f"{_BOARD}.md", tables.as_markdown(board))
        asked.folder.write(f"{_BOARD}.csv", tables.as_csv(board))
        asked.folder.write(f"{_BOARD}.html", tables.as_html(board))
        return board

    planned = seconds_of(todo, rehearsed)
    pool = Pool(asked.jobs, screen, interruption, planned, caches, write)
    with interruption.listening():
        return write(pool.run(todo))


def _board(asked: Asked, cells: Sequence[Cell], failed: Mapping[str, str]) -> dict[str, Any]:
    """What leaderboard.json holds."""
    runs = {cell.name: cell.folder.figures() for cell in cells if cell.finished}
    lines = [_line(entry, cells, runs, failed) for entry in asked.entries]
    students = [run for line in lines for run in line.runs.values()]
    first = students[0] if students else None
    board: dict[str, Any] = {
        "schema": SCHEMA,
        "name": asked.folder.path.name,
        "seeds": list(asked.seeds),
        "score": _UNKNOWN if first is None else first["score"],
        "latency": "" if first is None else f"latency: {first['latency']['how']}",
        "facts": [] if first is None else _facts(asked, first),
        "machines": _machines(students),
        "teachers": _teachers(cells, runs, students),
        "rows": leaderboard.rows(lines),
    }
    notes = [*tables.notes(board, asked.jobs), *differences(asked.entries)]
    if len(board["machines"]) > 1:
        notes.append(f"the runs do not share one machine and precision: {'; '.join(board['machines'])}")
    return {**board, "notes": notes}


def _line(
    entry: Entry, cells: Sequence[Cell], runs: Mapping[str, Any], failed: Mapping[str, str]
) -> leaderboard.Line:
    own = [cell for cell in cells if cell.entry == entry.name]
    return leaderboard.Line(
        entry,
        {cell.seed: runs[cell.name] for cell in own if cell.name in runs},
        {cell.seed: failed[cell.name] for cell in own if cell.name in failed},
        [cell.seed for cell in own if cell.name not in runs and cell.name not in failed],
    )


def _facts(asked: Asked, run: Mapping[str, Any]) -> list[str]:
    """Data, student and budget, a sentence each."""
    data, about = run["data"], run["networks"]["distilled"]
    recipe = asked.entries[0].recipe
    sizes = ", ".join(f"{number:,} {part}" for part, number in data["samples"].items())
    few = f", {data['labels']:,} training labels" if data["labels"] < data["samples"]["train"] else ""
    names = [
        spec.get("name", "") if isinstance(spec, dict) else spec
        for spec in recipe.data.model_dump()["augment"]
    ]
    augment = f"; augmented by {', '.join(names)}" if names else ""
    train = recipe.train
    return [
        f"data: {data['source']}: {sizes}{few}{augment}",
        f"student: {recipe.all_students()[0].model}, {about['parameters']:,} parameters",
        f"budget of every line: {figures.count(train.epochs, 'epoch')}, batch {train.batch_size}, "
        f"{train.optimizer}, learning rate {train.learning_rate:g}, {train.schedule}",
    ]


def _machines(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the runs were computed, each place once."""
    where = [run["machine"] for run in runs]
    found = [f"{each['processor']}, {each['used']}, torch {each['versions']['torch']}" for each in where]
    return list(dict.fromkeys(found))


def _teachers(
    cells: Sequence[Cell], runs: Mapping[str, Any], students: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The teachers that were trained here; else those that were given, as the first run scored them."""
    own = [
        leaderboard.teacher_row(cell.name, runs[cell.name]["networks"]["distilled"])
        for cell in cells
        if not cell.entry and cell.name in runs
    ]
    given = {
        name: leaderboard.teacher_row(name, about)
        for run in reversed(students)
        for name, about in run["networks"].items()
        if name.split()[0] == "teacher" and about.get("note") != "trained along"
    }
    return own or list(given.values())
