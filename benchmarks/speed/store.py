"""The stored results of a benchmark that takes long: one JSON file, written after every cell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1


class Store:
    """The cells of one benchmark.

    Args:
        file: where they are kept; read if it exists.
        about: facts that are written beside the cells.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self.file = file
        self._about = dict(about)
        kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
        self.cells: list[dict[str, Any]] = kept.get("cells", [])

    def has(self, key: str) -> bool:
        """Whether the cell of a key is done."""
        return any(cell["key"] == key for cell in self.cells)

    def keep(self, keys: Iterable[str]) -> int:
        """Forgets the cells that have none of these keys: their settings have changed. Gives their number."""
        known, before = set(keys), len(self.cells)
        self.cells = [cell for cell in self.cells if cell["key"] in known]
        return before - len(self.cells)

    def add(self, cell: Mapping[str, Any]) -> None:
        """Puts a finished cell in and writes the file."""
        self.cells = [other for other in self.cells if other["key"] != cell["key"]] + [dict(cell)]
        self.write()

    def write(self) -> None:
        """Writes the file beside its place and renames it, so that a kill leaves the old or the new one."""
        content = {"schema": SCHEMA, **self._about, "cells": self.cells}
        text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".part")
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, self.file)
