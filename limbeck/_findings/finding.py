"""One finding: its code, what was seen, where, and the fix."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]

WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or worth a second thought.

    Args:
        code: of the catalogue, as "K104".
        severity: an error would stop or spoil a run; a warning would not.
        message: one sentence: what was seen, with its figures.
        where: the place, as `file:line:column`; None where there is none.
        fix: the likely fix, ready to type; None where the page of the code says what to do.
        line: the text at that place.
        detail: further sentences.
    """

    code: str
    severity: Severity
    message: str
    where: str | None = None
    fix: str | None = None
    line: str = ""
    detail: str = ""

    def text(self, width: int = WIDTH) -> str:
        """What was seen, the place with its line, details, the fix; folded into `width` columns."""
        lines = _folded(f"{self.severity} {self.code}: {self.message}", width, "  ", first="")
        if self.where:
            place = f"  {self.where}"
            shown = f"{place}   {self.line}" if self.line else place
            lines.append(shown if len(shown) <= width else f"{shown[: width - 4]} ...")
        if self.detail:
            lines += _folded(self.detail, width, "  ")
        if self.fix:
            lines += _folded(f"fix: {self.fix}", width, "       ", first="  ")
        return "\n".join(lines)

    def stored(self) -> dict[str, Any]:
        """Plain values, as they stand under "findings" in JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "where": self.where,
            "fix": self.fix,
            "line": self.line,
            "detail": self.detail,
        }

    def __repr__(self) -> str:
        return self.text()


def found(code: str, message: str, where: str | None = None, fix: str | None = None, **more: str) -> Finding:
    """A finding whose severity is that of its code: codes in K1 are errors, all others warnings."""
    severity: Severity = "error" if code.startswith("K1") else "warning"
    return Finding(code, severity, message, where, fix, **more)


def _folded(text: str, width: int, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
