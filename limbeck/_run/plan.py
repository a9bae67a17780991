"""The plan of a run: what it will do, what each part will take, what was chosen and why."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limbeck._run.screen import beside
from limbeck._show import figures

WIDTH = 80
MOST_LINES = 12
_INDENT = " " * 11  # under the text of the first line
_LONG = 3600.0  # seconds from which the total is a warning
_SHARE = 0.8  # of memory or free disk from which it is


@dataclass(frozen=True)
class Part:
    """A phase of the run.

    Args:
        name: short, as it stands before its lines.
        about: what it does, in one line.
        seconds: what it will take; None where that is not a matter of time.
    """

    name: str
    about: str
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """All that is known before the first step.

    Args:
        head: versions, machine, seed.
        folder: where the run will go.
        kept: what is said of older runs with this name.
        parts: the phases, in order; those without a time are facts.
        memory: most bytes that will be held; None where it cannot be told.
        disk: bytes that will be written.
        same: what a second run will reproduce.
        chosen: what "auto" chose and why.
        notes: what was noticed; the first ones are shown, all are in the log.
        limits: bytes of memory and of free disk there are, by name.
        most: lines that it may take.
    """

    head: str
    folder: str
    kept: str
    parts: Sequence[Part]
    memory: int | None
    disk: int
    same: str
    chosen: str
    notes: Sequence[str] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    most: int = MOST_LINES

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(part.seconds or 0.0 for part in self.parts)

    def lines(self) -> list[str]:
        """At most `most` lines of eighty columns; where it is much, parts have one line, then all has."""
        for most, of_facts in ((2, 3), (1, 3), (1, 2), (1, 1)):
            lines = self._lines(most, of_facts)
            if len(lines) <= self.most:
                break
        for note in self.notes:
            more = _lines("note", note, None, 2)
            lines += more if len(lines) + len(more) <= self.most else []
        return lines[: self.most]

    def _lines(self, most: int, of_facts: int) -> list[str]:
        title = f"plan for {self.folder}" + (f" ({self.kept})" if self.kept else "")
        lines = [self.head, beside(title, "time", WIDTH)]
        memory = "" if self.memory is None else f", {figures.size(self.memory)} memory"
        total = f"{figures.clock(self.seconds)}{memory}, {figures.size(self.disk)} disk; {self.same}"
        facts = [Part("in all", total), *([Part("chosen", self.chosen)] if self.chosen else [])]
        for part in self.parts:
            lines += _lines(part.name, part.about, part.seconds, most)
        for part in facts:
            lines += _lines(part.name, part.about, part.seconds, of_facts)
        return lines

    def warnings(self) -> list[str]:
        """What makes the total worth a second thought."""
        found = []
        if self.seconds > _LONG:
            found.append(f"this will take {figures.clock(self.seconds)}")
        memory = self.limits.get("memory")
        if memory and self.memory and self.memory > _SHARE * memory:
            found.append(f"{figures.size(self.memory)} of {figures.size(memory)} memory will be used")
        disk = self.limits.get("disk")
        if disk is not None and self.disk > _SHARE * disk:
            found.append(f"{figures.size(self.disk)} of {figures.size(disk)} free disk will be used")
        return found

    def text(self) -> str:
        """The lines, and warnings below them."""
        return "\n".join([*self.lines(), *(f"warning: {text}" for text in self.warnings())])

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "folder": self.folder,
            "seconds": round(self.seconds, 1),
            "parts": [
                {"name": part.name, "about": part.about, "seconds": part.seconds and round(part.seconds, 1)}
                for part in self.parts
            ],
            "memory_bytes": self.memory,
            "disk_bytes": self.disk,
            "same": self.same,
            "chosen": self.chosen,
            "notes": list(self.notes),
            "warnings": self.warnings(),
        }

    def __repr__(self) -> str:
        return self.text()


def _lines(name: str, about: str, seconds: float | None, most: int) -> list[str]:
    """One line, and where the text is long further ones, as many as it may take."""
    right = "" if seconds is None else figures.clock(seconds)
    room = WIDTH - len(_INDENT) - (len(right) + 1 if right else 0)
    parts = textwrap.wrap(about, room, max_lines=most, placeholder=" ...", break_on_hyphens=False)
    parts = parts or [""]
    first = f"  {name:<8} {parts[0]}"
    return [beside(first, right, WIDTH) if right else first, *(_INDENT + part for part in parts[1:])]


def free_disk(path: str) -> int:
    """Bytes free where a folder is or will be."""
    return shutil.disk_usage(path).free
