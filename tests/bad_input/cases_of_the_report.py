"""Wrong requests for a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bad_input.cases import RECIPE, Case


def _run(name: str, **figures: Any) -> None:
    """A folder that looks like a run as far as these requests look."""
    from limbeck import Recipe
    from limbeck._run.folder import RunFolder

    recipe = Recipe.parse(RECIPE, "mine.toml")
    score = {"split": "test", "kind": "classes", "name": "accuracy", "samples": 9}
    told = {"state": "finished", "recipe": recipe.given(), "score": score, **figures}
    told["data"] = {"fingerprint": name}
    folder = RunFolder(Path("runs", name))
    folder.path.mkdir(parents=True)
    folder.begin(recipe, recipe, told)


def _finished(folder: Path) -> None:
    _run("one")
    (folder / "notes.html").write_text("<p>mine</p>", encoding="utf-8")


def _unfinished(folder: Path) -> None:
    _run("one", state="running")


def _of_two_kinds(folder: Path) -> None:
    _run("one")
    _run("two", score={"split": "test", "kind": "values", "name": "r2", "samples": 9})


def _damaged_evidence(folder: Path) -> None:
    _run("one")
    evidence = folder / "runs" / "one" / "evidence"
    evidence.mkdir()
    (evidence / "evidence.json").write_text('{"answers": "", "disputed": []}', encoding="utf-8")


def _half_evidence(folder: Path) -> None:
    _run("one")
    (folder / "runs" / "one" / "evidence").mkdir()


CASES = [
    Case("report-without-runs", "there is no run in runs", "limbeck distill quickstart", words=["report"]),
    Case("report-of-nowhere", "nowhere is no run", "limbeck distill", words=["report", "nowhere"]),
    Case("report-of-a-recipe", "mine.toml is no run", "limbeck distill", words=["report", "mine.toml"]),
    Case(
        "report-of-an-unfinished-run",
        "runs/one is not finished",
        "limbeck distill runs/one --resume",
        words=["report", "runs/one"],
        files=_unfinished,
    ),
    Case(
        "report-into-a-folder",
        "runs is a folder",
        "--output runs/report.html",
        words=["report", "runs/one", "--output", "runs"],
        files=_finished,
    ),
    Case(
        "report-over-something-else",
        "notes.html is there and is no report of limbeck",
        "--output with another file",
        words=["report", "runs/one", "--output", "notes.html"],
        files=_finished,
    ),
    Case(
        "report-of-scores-of-two-kinds",
        "the runs have different scores, accuracy and r2",
        "a report for each",
        words=["report", "runs/one", "runs/two"],
        files=_of_two_kinds,
    ),
    Case(
        "report-of-damaged-evidence",
        "evidence.json is damaged or was edited",
        "restore it from a copy",
        words=["report", "runs/one"],
        files=_damaged_evidence,
    ),
    Case(
        "report-of-missing-evidence",
        "evidence/evidence.json is missing",
        "restore it from a copy",
        words=["report", "runs/one"],
        files=_half_evidence,
    ),
    Case(
        "report-with-a-misspelt-flag",
        "limbeck report has no flag --ouput",
        "--output",
        words=["report", "runs/one", "--ouput", "page.html"],
    ),
]
