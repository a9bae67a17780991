"""Runs the recipes of the package and stores what `limbeck recipes` shows of them.

    python -m benchmarks.recipes [NAME ...]

One run of each, seed 0, as `limbeck distill NAME`; the scores are those of the closing table.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import limbeck
from limbeck._recipe.shelf import recipe_names

STORE = Path(limbeck.__file__).parent / "recipes" / "measured.json"


def measure(name: str) -> dict[str, Any]:
    """Scores in per cent, seconds and machine of one run of a recipe."""
    with tempfile.TemporaryDirectory() as folder:
        # A cache of its own: a first run, in which the teacher's answers are written.
        run = limbeck.distill(name, overrides={"cache.folder": f"{folder}/cache"}, output=f"{folder}/{name}")
        figures = json.loads((run.folder / "run.json").read_text("utf-8"))
    networks = figures["networks"]
    return {
        "teacher": round(100 * networks["teacher"]["score"], 1),
        "alone": round(100 * networks["alone"]["score"], 1),
        "distilled": round(100 * networks["distilled"]["score"], 1),
        "seconds": round(figures["seconds"]),
        "processor": figures["machine"]["processor"],
        "cores": figures["machine"]["cores"],
        "torch": figures["machine"]["versions"]["torch"],
    }


def main(names: list[str]) -> None:
    """Measures the recipes named, or all; each is stored as soon as it is done."""
    for name in names or recipe_names():
        stored = json.loads(STORE.read_text("utf-8"))
        stored["recipes"][name] = measure(name)
        stored["recipes"] = dict(sorted(stored["recipes"].items()))
        STORE.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
        print(name, stored["recipes"][name])


if __name__ == "__main__":
    main(sys.argv[1:])
