"""The stored results of a comparison: one JSON file, written after every cell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1


class Store:
    """The cells and the teacher of one comparison.

    Args:
        file: where they are kept; read if it exists.
        about: facts of the comparison that the page shows.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self.file = file
        self._about = dict(about)
        kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
        self.teacher: dict[str, Any] | None = kept.get("teacher")
        self.cells: list[dict[str, Any]] = kept.get("cells", [])

    def has(self, key: str) -> bool:
        """Whether the cell of a key is done."""
        return any(cell["key"] == key for cell in self.cells)

    def keep(self, keys: Iterable[str]) -> int:
        """Forgets the cells that have none of these keys: their settings have changed. Gives their number."""
        known = set(keys)
        return self._keep(lambda cell: cell["key"] in known)

    def set_teacher(self, teacher: Mapping[str, Any]) -> int:
        """Puts a teacher in; cells that learned from other weights are forgotten. Gives their number."""
        self.teacher = dict(teacher)
        gone = self._keep(lambda cell: cell["teacher"] in (None, teacher["digest"]))
        self.write()
        return gone

    def add(self, cell: Mapping[str, Any]) -> None:
        """Puts a finished cell in and writes the file."""
        self.cells = [other for other in self.cells if other["key"] != cell["key"]] + [dict(cell)]
        self.write()

    def write(self) -> None:
        """Writes the file beside its place and renames it, so that a kill leaves the old or the new one."""
        content = {"schema": SCHEMA, **self._about, "teacher": self.teacher, "cells": self.cells}
        text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".part")
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, self.file)

    def _keep(self, wanted: Any) -> int:
        before = len(self.cells)
        self.cells = [cell for cell in self.cells if wanted(cell)]
        return before - len(self.cells)
