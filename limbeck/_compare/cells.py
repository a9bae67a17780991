"""The runs of a comparison: each teacher once, every line of the table with every seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck._compare.entries import Entry
from limbeck._run.folder import RunFolder
from limbeck.errors import RequestError
from limbeck.recipe import Recipe

CELLS = "cells"
_TEACHER = "teacher"


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        name: of its folder, as `kd-seed0`.
        title: on the screen, as `kd, seed 0`.
        entry: the line of the table that it belongs to; empty for a teacher.
        seed: of the recipe.
        recipe: of the run.
        folder: of the run.
        needs: names of the cells whose weights it reads.
    """

    name: str
    title: str
    entry: str
    seed: int
    recipe: Recipe = field(repr=False)
    folder: RunFolder = field(repr=False)
    needs: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.folder.finished

    def check(self) -> None:
        """Refuses a folder that was begun with other settings.

        Raises:
            RequestError: its recipe is not this one.
        """
        if not self.folder.is_run:
            return
        begun = self.folder.figures().get("recipe_fingerprint")
        if begun is not None and begun != self.recipe.fingerprint():
            raise RequestError(
                f"{self.folder} was begun with other settings of {self.entry or _TEACHER}",
                fix="--output with another folder, or a recipe of another name",
            )


def cells_of(
    entries: Sequence[Entry],
    seeds: Sequence[int],
    folder: Path,
    trained: Mapping[str, Sequence[int]],
    threads: int | None = None,
) -> list[Cell]:
    """All runs of a comparison, teachers first, then seed by seed.

    Args:
        entries: the lines of the table.
        seeds: of the students; those of the teachers follow from the first recipe's, so all students share
            them.
        folder: of the comparison.
        trained: by name of the line, the numbers of its teachers that are trained first.
        threads: that one run may take; None: as its recipe says.
    """
    teachers: dict[str, Cell] = {}
    given = [entry for entry in entries if entry.recipe.all_teachers()]
    teaching = _teacher_seed(given[0].recipe.seed) if given else 0
    places: dict[tuple[str, int], Cell] = {}
    for entry in entries:
        for number in trained.get(entry.name, ()):
            recipe = _teacher_recipe(entry.recipe, number, teaching, threads)
            key = recipe.fingerprint()
            name = _TEACHER if not teachers else f"{_TEACHER}-{key[:8]}"
            if key not in teachers:
                teachers[key] = _cell(folder, name, name, "", teaching, recipe)
            places[entry.name, number] = teachers[key]
    students = [
        _student(folder, entry, seed, trained, places, threads) for seed in seeds for entry in entries
    ]
    return [*teachers.values(), *students]


def _teacher_seed(seed: int) -> int:
    """Another one than those of students: of equal networks the two would be one."""
    return int.from_bytes(hashlib.sha256(f"{seed} teacher".encode()).digest()[:4], "big")


def _student(
    folder: Path,
    entry: Entry,
    seed: int,
    trained: Mapping[str, Sequence[int]],
    places: Mapping[tuple[str, int], Cell],
    threads: int | None,
) -> Cell:
    """The run of a line of the table with a seed."""
    recipe, name = entry.recipe, f"{entry.name}-seed{seed}"
    given = {**recipe.given(), "name": name[-100:], "seed": seed, "alone": False, "export": {"to": []}}
    needed = {number: places[entry.name, number] for number in trained.get(entry.name, ())}
    specs = [
        _taught(given, recipe, number, needed.get(number)) for number in range(len(recipe.all_teachers()))
    ]
    if recipe.teacher is not None:
        given["teacher"] = specs[0]
    elif specs:
        given["teachers"] = specs
    made = Recipe(**_on(given, threads))
    needs = tuple(dict.fromkeys(cell.name for cell in needed.values()))
    return _cell(folder, name, f"{entry.name}, seed {seed}", entry.name, seed, made, needs)


def _taught(given: Mapping[str, Any], recipe: Recipe, number: int, cell: Cell | None) -> dict[str, Any]:
    """The table of a teacher, with the weights that its own run found."""
    spec = dict(given["teacher"] if recipe.teacher is not None else given["teachers"][number])
    if cell is None:
        return spec
    spec.pop("train", None)
    # A run that trains its teacher itself goes on with a poor one, too.
    return {**spec, "weights": str(cell.folder.path / "student" / "model.safetensors"), "accept_chance": True}


def _teacher_recipe(recipe: Recipe, number: int, seed: int, threads: int | None) -> Recipe:
    """The run that trains a teacher: as a plain student, with all labels and new views every epoch."""
    spec = recipe.all_teachers()[number]
    given = recipe.given()
    data = {key: value for key, value in given["data"].items() if key not in ("labels", "views")}
    views = {"views": "fresh"} if recipe.data.augment else {}
    network = spec.model_dump(exclude_unset=True, exclude={"weights", "train", "accept_chance"})
    made = {
        "name": _TEACHER,
        "seed": seed,
        "alone": False,
        "data": {**data, **views},
        "student": network,
        "method": {"name": "plain"},
        "train": recipe.training_of(spec).model_dump(exclude_unset=True),
        "machine": given.get("machine", {}),
        "export": {"to": []},
    }
    return Recipe(**_on(made, threads))


def _on(given: dict[str, Any], threads: int | None) -> dict[str, Any]:
    """The tables with the number of threads of a run, unless they say it themselves."""
    machine = given.get("machine", {})
    if threads is None or machine.get("threads", "auto") != "auto":
        return given
    return {**given, "machine": {**machine, "threads": threads}}


def _cell(
    folder: Path, name: str, title: str, entry: str, seed: int, recipe: Recipe, needs: tuple[str, ...] = ()
) -> Cell:
    return Cell(name, title, entry, seed, recipe, RunFolder(folder / CELLS / name), needs)


def identity(entry: Entry) -> str:
    """Of a line of the table, whatever the seed."""
    given = entry.recipe.model_dump(exclude={"name", "seed", "alone", "machine", "log", "export"})
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
