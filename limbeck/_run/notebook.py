"""The progress of a run in a notebook: one table, a row an epoch."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from limbeck._run.screen import PhaseLine, Screen
from limbeck._show import figures
from limbeck._show.tables import Table
from limbeck.engine.listener import EpochEnd, StepEnd

_HEAD = ("phase", ">epoch", ">validation", "terms", ">time")


def notebook() -> Any:
    """The `IPython.display` module of the notebook that this runs in; None elsewhere."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if type(shell).__name__ != "ZMQInteractiveShell":
        return None
    return importlib.import_module("IPython.display")


class NotebookScreen(Screen):
    """Shows text as it comes and one growing table.

    Args:
        display: the module `IPython.display`.
    """

    def __init__(self, display: Any) -> None:
        super().__init__(live=False)
        self.display = display
        self.rows: list[tuple[str, ...]] = []
        self.handle: Any = None

    def say(self, text: str) -> None:
        """Text in the cell's output."""
        print(text)

    def phase(
        self, name: str, epochs: int, kind: str, score_name: str, after: float, done: int = 0
    ) -> PhaseLine:
        """Rows of one phase; see `Screen.phase`."""
        return _Rows(self, name, epochs, kind, score_name, after, done)

    def over(self, name: str, text: str, right: str) -> None:
        """A row for a phase that trains nothing."""
        self.add((name, "", "", text.strip(), right))

    def add(self, row: tuple[str, ...]) -> None:
        """One more row."""
        self.rows.append(row)
        table = Table(_HEAD, self.rows)
        if self.handle is None:
            self.handle = self.display.display(table, display_id=True)
        else:
            self.handle.update(table)


class _Rows(PhaseLine):
    """An epoch becomes a row; nothing moves in between."""

    screen: NotebookScreen

    def on_step(self, event: StepEnd) -> None:
        """Only the start of a resumed phase is noted."""
        if self.began is None:
            self.began = (0.0, 0.0)
            if event.stage == 0:
                self.done = event.epoch - 1

    def on_epoch(self, event: EpochEnd) -> None:
        """A row."""
        self.done += 1
        first = next(iter(event.scores.values()), None)
        score = "" if first is None else figures.score(self.kind, first[self.score_name])
        time = figures.clock(event.seconds)
        self.screen.add((self.name, self._head(), score, figures.terms(event.terms), time))

    def finish(self, seconds: float, score: float | None, done: int) -> None:
        """The rows stay."""
