"""Small tables: aligned text for a console, HTML without script for a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

_STYLE = "border-collapse:collapse;color:inherit;background:transparent"
_CELL = "padding:2px 10px;border-bottom:1px solid currentColor;text-align:"


@dataclass(frozen=True)
class Table:
    """Rows under a head.

    Args:
        head: names of the columns; one that starts with `>` is aligned to the right.
        rows: cells as text; a row may be shorter than the head.
        notes: lines below it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)

    def _cells(self) -> list[list[str]]:
        names = [name.removeprefix(">") for name in self.head]
        return [[*row, *[""] * (len(self.head) - len(row))] for row in [names, *self.rows]]

    def text(self, width: int = 0) -> str:
        """Aligned columns.

        Args:
            width: columns of the console; the last column is folded into it; 0 folds nothing.
        """
        cells = self._cells()
        widths = [max(len(row[number]) for row in cells) for number in range(len(self.head))]
        right = [name.startswith(">") for name in self.head]
        before = sum(widths[:-1]) + 2 * (len(widths) - 1)
        room = max(width - before, 20) if width else max(widths[-1], 1)
        lines = []
        for row in cells:
            parts = [
                cell.rjust(size) if at_right else cell.ljust(size)
                for cell, size, at_right in zip(row[:-1], widths[:-1], right[:-1], strict=True)
            ]
            folded = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
            if right[-1]:
                folded[0] = folded[0].rjust(widths[-1])
            lines.append("  ".join([*parts, folded[0]]).rstrip())
            lines += [" " * before + rest for rest in folded[1:]]
        return "\n".join([*lines, *self.notes])

    def markdown(self) -> str:
        """A table of Markdown; what would end a cell or begin a tag is made harmless."""
        side = ["---:" if name.startswith(">") else "---" for name in self.head]
        head, *rows = [[harmless(cell) for cell in row] for row in self._cells()]
        lines = ["| " + " | ".join(row) + " |" for row in [head, side, *rows]]
        notes = [f"- {harmless(note)}" for note in self.notes]
        return "\n".join([*lines, *([""] if notes else []), *notes])

    def html(self) -> str:
        """A table that inherits the colours of its page; every text is escaped."""
        side = ["right" if name.startswith(">") else "left" for name in self.head]
        rows = []
        for number, row in enumerate(self._cells()):
            tag = "td" if number else "th"
            cells = "".join(
                f'<{tag} style="{_CELL}{at}">{html.escape(cell)}</{tag}>'
                for cell, at in zip(row, side, strict=True)
            )
            rows.append(f"<tr>{cells}</tr>")
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self.notes)
        return f'<table style="{_STYLE}">{"".join(rows)}</table>{notes}'

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def harmless(text: str) -> str:
    """A text for a cell of a Markdown table: one line, no bar, no tag."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
