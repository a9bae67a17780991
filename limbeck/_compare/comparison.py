"""What `compare` returns: a comparison that shows itself as its leaderboard."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck._compare import tables
from limbeck._show.tables import Table
from limbeck.errors import RequestError

if TYPE_CHECKING:
    from limbeck._run.plan import Plan

_ROWS = 10  # of the form for notebooks, which stays small


@dataclass(frozen=True)
class Comparison:
    """A comparison: its leaderboard, or the plan of one that was only planned.

    Shows itself as the leaderboard, in a console and in a notebook.

    Args:
        folder: where it is, with `leaderboard.md`, `.csv`, `.json` and `.html`.
        figures: what leaderboard.json holds; empty for a dry run.
        plan: of what was still to be run; None where nothing was.
    """

    folder: Path
    figures: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def table(self) -> Table:
        """The leaderboard with all its columns.

        Raises:
            RequestError: it was only planned.
        """
        if not self.figures:
            raise RequestError(f"{self.folder} was only planned", fix="the same without dry_run")
        return tables.whole(self.figures)

    @property
    def failed(self) -> dict[str, str]:
        """Why runs failed, by line of the table and seed."""
        return {
            f"{row['name']}, seed {seed}": why
            for row in self.figures.get("rows", ())
            for seed, why in row["failed"].items()
        }

    def text(self) -> str:
        """Scores, costs and notes, or the plan."""
        if not self.figures:
            return self.plan.text() if self.plan is not None else f"{self.folder}: all runs are done"
        costs = tables.costs(self.figures)
        notes = [
            textwrap.fill(note, 80, subsequent_indent="  ", break_on_hyphens=False) for note in costs.notes
        ]
        return "\n".join(
            [tables.scores(self.figures).text(), "", Table(costs.head, costs.rows).text(), "", *notes]
        )

    def next_text(self) -> str:
        """The files, and what can be done next."""
        best = next((row for row in self.figures["rows"] if row["test"] is not None), None)
        lines = [
            f"{self.folder.as_posix()}   leaderboard.md  leaderboard.csv  leaderboard.json  leaderboard.html"
        ]
        if best is not None:
            seed = next(iter(best["test"]["seeds"]))
            lines.append(
                f"next  {self.folder.as_posix()}/cells/{best['name']}-seed{seed}   a run of the first line"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What leaderboard.json holds, or the plan."""
        if not self.figures:
            return {"schema": 1, "plan": None if self.plan is None else self.plan.to_json()}
        return dict(self.figures)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        if not self.figures:
            return f"<pre>{html.escape(self.text())}</pre>"
        table = self.table
        more = len(table.rows) - _ROWS
        notes = [*table.notes, *([f"{more} more rows stand in leaderboard.html"] if more > 0 else [])]
        return Table(table.head, table.rows[:_ROWS], notes).html()
