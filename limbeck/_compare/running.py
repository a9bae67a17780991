"""The runs of a comparison, each in a process of its own, several at once where asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck._compare.cells import Cell
from limbeck._run.screen import LiveLine, Screen, bar
from limbeck._show import figures
from limbeck.engine.interruption import Interruption
from limbeck.errors import Interrupted

_LOOK = 0.1  # seconds between two looks at the processes


@dataclass
class Running:
    """A process and where its words go."""

    cell: Cell
    process: subprocess.Popen[str]
    began: float = field(default_factory=time.monotonic)


@dataclass
class Pool:
    """Runs cells until all have finished or failed.

    Args:
        jobs: how many at once.
        screen: a line goes there for each cell that ends.
        interruption: the signal that stops all.
        planned: seconds by name of the cell.
        caches: by name of a cell, what tells its teacher's stored answers from others; the first cell
            writes them, and until they are there no second one that reads the same is started.
        ended: called after each cell.
    """

    jobs: int
    screen: Screen
    interruption: Interruption
    planned: Mapping[str, float]
    caches: Mapping[str, Any]
    ended: Callable[[Mapping[str, str]], object]
    failed: dict[str, str] = field(default_factory=dict)
    _running: list[Running] = field(default_factory=list)
    _filled: set[Any] = field(default_factory=set)
    _spent: float = 0.0
    _expected: float = 0.0

    def run(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Why cells failed, by name.

        Raises:
            Interrupted: a signal came; every run is saved.
        """
        waiting = [cell for cell in cells if not cell.finished]
        total, line = len(waiting), LiveLine(self.screen)
        try:
            while waiting or self._running:
                if self.interruption.signal_number is not None:
                    self._stop(self.interruption.signal_number)
                self._start(waiting)
                for running in [each for each in self._running if each.process.poll() is not None]:
                    line.close()
                    self._end(running, waiting, total)
                self._draw(line, waiting, total)
                time.sleep(_LOOK)
        finally:
            line.close()
            for running in self._running:
                running.process.kill()
                running.process.wait()
        return self.failed

    def _start(self, waiting: list[Cell]) -> None:
        """Starts what can be started; takes out what never will be."""
        for cell in list(waiting):
            pending = {each.name for each in waiting} | {each.cell.name for each in self._running}
            lost = [name for name in cell.needs if name in self.failed]
            if lost:
                waiting.remove(cell)
                self.failed[cell.name] = f"its {lost[0]} was not trained: {self.failed[lost[0]]}"
                self.ended(self.failed)
            elif len(self._running) < self.jobs and not pending & set(cell.needs) and self._may_read(cell):
                waiting.remove(cell)
                self._running.append(Running(cell, started(cell)))

    def _may_read(self, cell: Cell) -> bool:
        """Whether no other run is writing the stored answers that a cell would write."""
        key = self.caches.get(cell.name)
        writing = [self.caches.get(each.cell.name) for each in self._running]
        return key is None or key in self._filled or key not in writing

    def _end(self, running: Running, waiting: Sequence[Cell], total: int) -> None:
        """Notes how a process ended, and says it."""
        self._running.remove(running)
        cell, took = running.cell, time.monotonic() - running.began
        reason = _reason(running)
        if reason is None:
            self._filled.add(self.caches.get(cell.name))
            text = _scores(cell.folder.figures())
            self._spent += took
            self._expected += self.planned.get(cell.name, took)
        else:
            self.failed[cell.name] = reason
            text = f"failed: {reason}"
        done = total - len(waiting) - len(self._running)
        left = self._left(waiting)
        after = f", left {figures.clock(left)}" if left else ""
        self.screen.over(f"{done}/{total}", f"{cell.title}  {text}", f"{figures.clock(took)}{after}")
        self.ended(self.failed)

    def _left(self, waiting: Sequence[Cell]) -> float:
        """Seconds until all is done: as planned, times what the finished cells took of their plan."""
        now = time.monotonic()
        begun = [
            max(self.planned.get(each.cell.name, 0.0) - (now - each.began), 0.0) for each in self._running
        ]
        planned = sum(begun) + sum(self.planned.get(cell.name, 0.0) for cell in waiting)
        pace = self._spent / self._expected if self._expected else 1.0
        return planned * pace / self.jobs

    def _draw(self, line: LiveLine, waiting: Sequence[Cell], total: int) -> None:
        if self.screen.live and not self.screen.quiet and self._running:
            done = total - len(waiting) - len(self._running)
            names = "; ".join(each.cell.title for each in self._running)
            left = figures.clock(self._left(waiting))
            line.draw(f"{f'{done}/{total}':<9}{bar(done / total)}  {names}", f"left {left}")

    def _stop(self, number: int) -> None:
        """Asks every run to save itself, and waits until it has."""
        for running in self._running:
            running.process.terminate()
        for running in self._running:
            running.process.wait()
        self._running.clear()
        raise Interrupted(number, "stopped on request; every run is saved", fix="the same command again")


def started(cell: Cell) -> subprocess.Popen[str]:
    """The process of a cell; what it says goes to a text file beside its folder."""
    beside = cell.folder.path.parent
    beside.mkdir(parents=True, exist_ok=True)
    recipe = beside / f"{cell.name}.toml"
    recipe.write_text(cell.recipe.to_toml(), encoding="utf-8", newline="\n")
    paths = [os.path.abspath(path) for path in sys.path]  # the user's modules are found there too
    with open(_words(cell), "w", encoding="utf-8") as words:
        return subprocess.Popen(
            [sys.executable, "-m", "limbeck._compare.cell", str(recipe), str(cell.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C comes to this process alone, which asks its runs to stop
        )


def _words(cell: Cell) -> Path:
    return cell.folder.path.parent / f"{cell.name}.txt"


def _reason(running: Running) -> str | None:
    """Why a run did not finish; None if it did."""
    code, cell = running.process.returncode, running.cell
    out = running.process.communicate()[0].strip()
    if cell.finished:
        return None
    if out.startswith("{"):
        return str(json.loads(out.splitlines()[-1])["message"])
    if code < 0:
        return f"ended by signal {-code}; see {_words(cell).as_posix()}"
    said = _words(cell).read_text("utf-8", errors="replace").strip().splitlines()
    return f"{said[-1] if said else f'exit code {code}'}; see {_words(cell).as_posix()}"


def _scores(run: Mapping[str, Any]) -> str:
    """What a finished run found: the score of the closing table, and that on validation data."""
    about, score = run["networks"]["distilled"], run["score"]
    parts = [f"{score['split']} {figures.score(score['kind'], about['score'])}"]
    if about.get("validation"):
        parts.append(f"validation {figures.score(score['kind'], about['validation'][score['name']])}")
    return "  ".join(parts)
