"""Where the checks put down what they looked at and what they found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from limbeck._findings import Finding, found
from limbeck._recipe.toml import Path
from limbeck._recipe.toml import dump_value as toml_value
from limbeck.errors import LimbeckError
from limbeck.recipe import Recipe

Role = Literal["teacher", "student"]


@dataclass
class Desk:
    """What was looked at, found and noticed in one check.

    Args:
        recipe: gives the places.
        findings: in the order in which they were found.
        looked: codes whose faults were looked for, each once, in order.
        notes: what is worth knowing and no fault, a sentence each.
    """

    recipe: Recipe
    findings: list[Finding] = field(default_factory=list)
    looked: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def looks(self, *codes: str) -> None:
        """Faults of these codes were looked for."""
        self.looked |= dict.fromkeys(codes)

    def finds(
        self,
        code: str,
        message: str,
        *path: str | int,
        fix: str | None = None,
        detail: str = "",
        where: str | None = None,
    ) -> None:
        """Adds a finding.

        Args:
            code: its code.
            message: what was seen.
            path: of the key in the recipe that is to blame.
            fix: the likely fix.
            detail: further sentences.
            where: the place, if it is known better than by its key.
        """
        self.looks(code)
        where = where or self.recipe.where(*path)
        self.findings.append(found(code, message, where, fix, line=self.recipe.line(where), detail=detail))

    def refused(self, code: str, error: LimbeckError, *path: str | int) -> None:
        """Adds what another part of limbeck refused, at this place of the recipe or at its own."""
        fix, near = error.fix, list(error.near)
        if fix is None and near:
            fix, near = near[0], near[1:]
        detail = f"near: {', '.join(near)}" if near else ""
        where = None if path else error.where
        self.finds(code, error.message, *path, fix=fix, detail=detail, where=where)

    def has(self, *codes: str) -> bool:
        """Whether something was found under one of these codes."""
        return any(finding.code in codes for finding in self.findings)

    @property
    def passed(self) -> list[str]:
        """Codes that were looked for and not found."""
        return [code for code in self.looked if not self.has(code)]

    def table(self, role: Role, number: int = 0) -> Path:
        """Where the table of a network stands in the recipe."""
        return (role,) if getattr(self.recipe, role) is not None else (f"{role}s", number)

    def in_table(self, line: str, *path: str | int) -> str:
        """A line to write, and where: `normalize = "imagenet" in [teacher], line 9`."""
        place = self.recipe.where(*path) or ""
        number = place.rsplit(":", 2)[1] if place.count(":") >= 2 and not place.startswith("--") else ""
        said = f"{line} in [{'.'.join(str(part) for part in path[:-1])}]"
        return f"{said}, line {number}" if number else said


def assigned(key: str, value: object) -> str:
    """`key = value` as TOML writes it."""
    return f"{key} = {toml_value(value)}"
