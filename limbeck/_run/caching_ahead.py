"""The verb `cache`: the teachers' answers of a recipe written ahead of its runs, and a cache checked."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck._run.caching import Caching, decide, plan_line, teacher_on, write
from limbeck._run.counting import CountLine
from limbeck._run.job import default_screen
from limbeck._run.screen import Screen, silent
from limbeck._run.session import open_session
from limbeck._run.team import Team
from limbeck._show import figures
from limbeck.cache import Verified, verify
from limbeck.engine.interruption import Interruption
from limbeck.errors import Interrupted, RequestError
from limbeck.recipe import Recipe


@dataclass(frozen=True)
class CacheRun:
    """The stored answers of a recipe's teachers, or what they would take.

    Attributes:
        plan: in one line.
        folders: of the caches, one a teacher.
        figures: answers, bytes, seconds; with `written` once it is done.
    """

    plan: str
    folders: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Two or three lines for people."""
        lines = [self.plan, *(f"  {folder}" for folder in self.folders)]
        if "written" in self.figures:
            took = figures.clock(self.figures["seconds"])
            lines.append(f"  {self.figures['written']:,} written in {took}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": 1, "folders": list(self.folders), **self.figures}

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text())}</pre>"


def ahead(recipe: Recipe, source: str, *, dry_run: bool, screen: Screen | None) -> CacheRun:
    """See `limbeck.write_cache`."""
    screen, team = screen or default_screen(), Team()
    for number, spec in enumerate(recipe.all_teachers()):
        if spec.weights == "train":
            path = ("teacher",) if recipe.teacher is not None else ("teachers", number)
            raise RequestError(
                f"the teacher {spec.model} is yet to be trained: there is nothing to store",
                where=recipe.where(*path, "weights", value=True) or recipe.where(*path),
                fix=f"limbeck distill {source} trains it and stores its answers in passing; or "
                'teacher.weights = "a file or student/ folder"',
            )
    required = recipe.model_copy(update={"cache": recipe.cache.model_copy(update={"mode": "require"})})
    session = open_session(required)
    networks = [session.teacher(number) for number in range(len(recipe.all_teachers()))]
    if not networks:
        raise RequestError(f"{recipe.method.name} uses no teacher", fix="a recipe with a [teacher]")
    caching = team.from_main(lambda: decide(session, session.method(networks), networks, ()))
    if dry_run:
        cached = [teacher_on(session, number, network, caching) for number, network in enumerate(networks)]
        found = {"answers": caching.answers, "missing": caching.missing, "bytes": caching.bytes}
        planned = {**found, "planned_seconds": round(caching.seconds, 1)}
        return CacheRun(_plan(caching), tuple(each.folder.as_posix() for each in cached), planned)
    shown = screen if team.is_main else silent()
    shown.say(_plan(caching))
    interruption = Interruption()

    def stop_if_asked() -> None:
        number = interruption.signal_number
        if number is not None:
            raise Interrupted(number, "stopped on request; whole shards are stored", fix="the same command")

    with interruption.listening():
        _, filled = write(session, networks, caching, shown, team, 0.0, stop_if_asked)
    team.part()
    return CacheRun(plan_line(caching), filled.folders, filled.stored())


def _plan(caching: Caching) -> str:
    return f"{plan_line(caching)}; {figures.clock(caching.seconds)} to write"


def verified(folder: str | Path, screen: Screen | None) -> Verified:
    """See `limbeck.verify_cache`."""
    screen = screen or default_screen()
    line: CountLine | None = None

    def say(done: int, of: int) -> None:
        nonlocal line
        line = line or CountLine(screen, "verify", of, 0.0)
        line.say(done)

    try:
        return verify(folder, say)
    finally:
        if line is not None:
            line.close()
