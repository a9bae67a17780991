"""What `limbeck check` returns: figures of one dry step, findings, what passed."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limbeck._findings import Finding
from limbeck._show import figures
from limbeck._show.tables import Table

WIDTH = 80
_ROOM = WIDTH - 8
_NOTES = 4  # that are shown; all are in JSON
_ROWS = 20  # findings that the form for notebooks shows


@dataclass(frozen=True)
class Check:
    """A recipe that was checked. Nothing was trained, nothing written.

    Attributes:
        recipe: as it was given.
        lines: figures by name: `pairs`, `scores`, `losses`, `cost`, `cache`, each a sentence.
        figures: the same as plain values.
        findings: errors first.
        passed: codes of faults that were looked for and not found.
        notes: what is worth knowing and no fault.
        seconds: that checking took.
    """

    recipe: str
    lines: Mapping[str, str]
    figures: Mapping[str, Any]
    findings: Sequence[Finding]
    passed: Sequence[str]
    notes: Sequence[str] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def errors(self) -> list[Finding]:
        """Findings that would stop or spoil a run; where there are any, the exit code is 1."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that let a run finish."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    @property
    def verdict(self) -> str:
        """`1 error, 1 warning, 18 passed in 8.4 s; nothing trained, nothing written`."""
        counts = [figures.count(len(self.errors), "error"), figures.count(len(self.warnings), "warning")]
        said = [text for text in counts if not text.startswith("0 ")]
        said.append(f"{len(self.passed)} passed in {self.seconds:.1f} s; nothing trained, nothing written")
        return ", ".join(said)

    def text(self) -> str:
        """Figures, findings, verdict, in 80 columns."""
        lines = [line for name, about in self.lines.items() for line in _folded(name, about)]
        lines += [line for note in self.notes[:_NOTES] for line in _folded("note", note)]
        lines += [finding.text() for finding in self.findings]
        lines.append(self.verdict)
        if self.findings:
            more = f"more: limbeck check --explain {self.findings[0].code}"
            lines.append(f"{more:<64}(exit code {int(bool(self.errors))})")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": 1,
            "recipe": self.recipe,
            **self.figures,
            "findings": [finding.stored() for finding in self.findings],
            "passed": list(self.passed),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        facts = Table(("", ""), [*self.lines.items(), *(("note", note) for note in self.notes)])
        rows = [
            (
                f"{each.severity} {each.code}",
                f"{each.message}. {each.detail}",
                each.where or "",
                each.fix or "",
            )
            for each in self.findings[:_ROWS]
        ]
        found = Table(("code", "what", "where", "fix"), rows).html() if rows else ""
        return f"{facts.html()}{found}<div>{html.escape(self.verdict)}</div>"


def _folded(name: str, about: str) -> list[str]:
    """A name before its text, which is folded under itself."""
    first, *rest = textwrap.wrap(about, _ROOM, break_on_hyphens=False) or [""]
    return [f"{name:<8}{first}", *(" " * 8 + line for line in rest)]
