"""One finding: its code, what was seen, where, and the fix."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from limbeck._findings.explained import folded

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
        lines = [folded(f"{self.severity} {self.code}: {self.message}", width, rest="  ")]
        if self.where:
            place = f"  {self.where}"
            shown = f"{place}   {self.line}" if self.line else place
            lines.append(shown if len(shown) <= width else f"{shown[: width - 4]} ...")
        if self.detail:
            lines.append(folded(self.detail, width, "  ", "  "))
        if self.fix:
            lines.append(folded(f"fix: {self.fix}", width, "  ", "       "))
        return "\n".join(lines)

    def stored(self) -> dict[str, Any]:
        """Plain values, as they stand under "findings" in JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        return self.text()


def found(code: str, message: str, where: str | None = None, fix: str | None = None, **more: str) -> Finding:
    """A finding whose severity is that of its code: codes in K1 are errors, all others warnings."""
    severity: Severity = "error" if code.startswith("K1") else "warning"
    return Finding(code, severity, message, where, fix, **more)
