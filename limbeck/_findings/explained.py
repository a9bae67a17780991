"""What is said of a code, and how it is laid out."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Explained:
    """A code in words.

    Args:
        code: as "K104"; K1 are errors and K2 warnings of `limbeck check`, R1 warnings of a finished run.
        title: what it says, as a sentence without its full stop.
        means: what was looked at, and when it is reported.
        matters: what happens if nothing is done.
        mend: what to do, likeliest first.
    """

    code: str
    title: str
    means: str
    matters: str
    mend: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`error of limbeck check`, `warning of limbeck check`, `warning of a finished run`."""
        if self.code.startswith("R"):
            return "warning of a finished run"
        return f"{'error' if self.code.startswith('K1') else 'warning'} of limbeck check"

    def text(self, width: int = 80) -> str:
        """For a console."""
        said = (f"{self.code}: {self.title} ({self.kind})", self.means, f"Why it matters: {self.matters}")
        parts = [folded(text, width) for text in said]
        steps = [folded(step, width, "- ", "  ") for step in self.mend]
        return "\n\n".join([*parts, "\n".join(["What to do:", *steps])])

    def stored(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "mend": list(self.mend), "kind": self.kind}

    def markdown(self) -> str:
        """A section of the page with all codes."""
        steps = "\n".join(f"- {step}" for step in self.mend)
        return (
            f"## {self.code}\n\n**{self.title}** ({self.kind})\n\n{self.means}\n\n"
            f"Why it matters: {self.matters}\n\nWhat to do:\n\n{steps}"
        )


def folded(text: str, width: int, first: str = "", rest: str = "") -> str:
    """A text in lines of so many columns; `first` and `rest` stand before them. Words stay whole."""
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )
