"""What `distill` returns: a run that shows itself."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck._run import closing
from limbeck._run.folder import opened
from limbeck._show.tables import Table
from limbeck.errors import RequestError

if TYPE_CHECKING:
    from limbeck._run.plan import Plan
    from limbeck.models.loaded import Loaded


@dataclass(frozen=True)
class Run:
    """A run: its plan, and once it is finished its figures.

    Shows itself as its closing table, in a console and in a notebook.

    Args:
        folder: where it is.
        figures: what run.json holds; empty for a dry run.
        plan: of a run that was planned here; None for one that was opened.
    """

    folder: Path
    figures: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """A run by its folder.

        Raises:
            RequestError: there is none.
        """
        found = opened(folder)
        return cls(found.path, {**found.figures(), "folder": str(found)})

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.figures.get("state") == "finished"

    @property
    def table(self) -> Table:
        """The closing table.

        Raises:
            RequestError: the run is not finished.
        """
        if not self.finished:
            raise RequestError(
                f"{self.folder} is not finished", fix=f"limbeck distill {self.folder} --resume"
            )
        return closing.table(self.figures)

    def student(self) -> Loaded:
        """The distilled student, ready to predict, with its preprocessing and class names."""
        from limbeck.models.folder import load

        return load(self.folder / "student")

    def text(self) -> str:
        """The closing text of a finished run, the plan of one that was only planned."""
        if self.finished:
            return closing.closing_text(self.figures)
        return self.plan.text() if self.plan is not None else f"{self.folder}: not finished"

    def next_text(self) -> str:
        """Files of a finished run, and what can be done next."""
        return closing.next_text(self.figures)

    def to_json(self) -> dict[str, Any]:
        """What run.json holds, or the plan."""
        if self.plan is not None and not self.finished:
            return {"schema": 1, "plan": self.plan.to_json()}
        return dict(self.figures)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        if self.finished:
            return closing.html(self.figures)
        return f"<pre>{html.escape(self.text())}</pre>"
