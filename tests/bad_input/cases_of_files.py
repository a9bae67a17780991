"""Runs, and the folders of other things, that cannot be used as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bad_input.cases import RECIPE, Case, Files

NAME = "runs/wrong"


def _run(folder: Path, **figures: Any) -> Path:
    """A run as `distill` begins it."""
    from limbeck import Recipe
    from limbeck._run.folder import RunFolder

    run = RunFolder(folder / NAME)
    run.path.mkdir(parents=True)
    recipe = Recipe.parse(RECIPE, "mine.toml")
    run.begin(recipe, recipe, {"state": "running", **figures})
    return run.path


def run_with(change: Callable[[Path], object], **figures: Any) -> Files:
    return lambda folder: change(_run(folder, **figures)) and None


def unfinished(folder: Path) -> None:
    _run(folder)


def _finished(folder: Path) -> None:
    _run(folder, state="finished")


def _edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        text = (run / name).read_text("utf-8")
        assert old in text
        (run / name).write_text(text.replace(old, new), "utf-8")

    return change


def newer(run: Path) -> None:
    from limbeck._seal import seal

    (run / "run.json").write_text(seal({"schema": 9, "state": "running"}, indent=1), "utf-8")


def _newer_cache(folder: Path) -> None:
    from limbeck._cache.key import claim

    claim(folder / "answers", {"format": 9, "samples": 3}, {})


def _file(name: str) -> Files:
    return lambda folder: (folder / name).write_text("", "utf-8") and None


RESUME = ("distill", NAME, "--resume")

CASES = [
    Case(
        "unfinished-run",
        "runs/wrong holds a run that is not finished",
        "limbeck distill runs/wrong --resume",
        files=unfinished,
    ),
    Case(
        "unfinished-run-shown", "runs/wrong is not finished", "--resume", words=RESUME[:2], files=unfinished
    ),
    Case(
        "settings-on-resume",
        "--set with the folder of a run",
        "limbeck distill runs/wrong --resume, or a new run: limbeck distill runs/wrong/recipe.toml",
        words=(*RESUME, "--set", "seed=1"),
        files=unfinished,
    ),
    Case(
        "folder-on-resume",
        "--output with the folder of a run",
        "--resume",
        words=(*RESUME, "--output", "elsewhere"),
        files=unfinished,
    ),
    Case(
        "settings-on-a-finished-run",
        "--set with the folder of a run",
        "--set student.weights=runs/wrong/student --set train.epochs=20 --output runs/wrong-longer",
        words=("distill", NAME, "--set", "train.epochs=20"),
        files=_finished,
    ),
    Case(
        "finished-run-in-the-way",
        "runs/wrong holds a finished run, which is kept",
        "--output with another folder",
        words=("--output", NAME),
        files=_finished,
    ),
    Case(
        "other-recipe-on-resume",
        "runs/wrong was begun with another recipe",
        "goes on with its own",
        words=("--resume",),
        edit=("temperature = 4.0", "temperature = 3.0"),
        files=unfinished,
    ),
    Case(
        "damaged-run",
        "runs/wrong/run.json is damaged or was edited",
        "limbeck distill runs/wrong/recipe.toml --output runs/wrong-new",
        words=RESUME,
        files=run_with(lambda run: (run / "run.json").write_text('{"schema": 1, "sta', "utf-8") and None),
    ),
    Case(
        "edited-figures",
        "runs/wrong/run.json is damaged or was edited",
        "restore it from a copy",
        words=RESUME[:2],
        files=run_with(_edit("run.json", '"test": 0.5', '"test": 0.9'), state="finished", test=0.5),
    ),
    Case(
        "edited-recipe-of-a-run",
        "runs/wrong/resolved.toml is damaged or was edited",
        "limbeck distill runs/wrong/recipe.toml --output runs/wrong-new",
        words=("--resume",),
        files=run_with(_edit("resolved.toml", "temperature = 4.0", "temperature = 9.0")),
    ),
    Case(
        "run-without-figures",
        "the run runs/wrong has no run.json",
        "restore it from a copy",
        words=RESUME,
        files=run_with(lambda run: (run / "run.json").unlink()),
    ),
    Case(
        "run-without-recipe",
        "runs/wrong is no run: it has no resolved.toml",
        "limbeck distill RECIPE",
        words=RESUME,
        files=run_with(lambda run: (run / "resolved.toml").unlink()),
    ),
    Case(
        "run-of-a-newer-version",
        "runs/wrong/run.json has schema 9; this limbeck reads up to 1",
        "the limbeck that wrote it, or a newer one",
        words=RESUME,
        files=run_with(newer),
    ),
    Case(
        "cache-of-a-newer-version",
        "answers has format 9; this limbeck reads 1",
        "the limbeck that wrote it",
        words=("cache", "--verify", "answers"),
        files=_newer_cache,
    ),
    Case(
        "output-is-a-file",
        "taken is there and is no run of limbeck",
        "--output with another folder",
        words=("--output", "taken"),
        files=_file("taken"),
    ),
]
