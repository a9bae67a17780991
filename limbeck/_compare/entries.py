"""What a comparison compares: recipes under one budget, and the plain student. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import RequestError
from limbeck.recipe import Recipe

ALONE = "alone"
_PLAIN, _KD = "plain", "kd"
#: Names of folders that lines of the table cannot have.
_TAKEN = (ALONE, "teacher")
_NONE = "nothing"


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard.

    Args:
        name: the recipe's; "alone" for the plain student that is added.
        recipe: as given, with every `--set`.
        source: what the recipe was called in the request.
    """

    name: str
    recipe: Recipe
    source: str

    @property
    def method(self) -> str:
        """The slug, or `module:Class`."""
        return self.recipe.method.name

    @property
    def is_alone(self) -> bool:
        """Whether this is the plain student."""
        return self.recipe.method.name == _PLAIN

    @property
    def is_kd(self) -> bool:
        """Whether this is plain kd, against which all others are held."""
        return self.recipe.method.name == _KD


def entries_of(recipes: Sequence[tuple[Recipe, str]]) -> list[Entry]:
    """The lines of a comparison: the plain student first, then the recipes in their order.

    Args:
        recipes: each with what it was called.

    Raises:
        RequestError: two have one name, or differ in what makes their scores incomparable.
    """
    entries = [Entry(recipe.name, recipe, source) for recipe, source in recipes]
    _check_names(entries)
    first = entries[0]
    for other in entries[1:]:
        _check_budget(first, other)
    alone = [entry for entry in entries if entry.is_alone][:1]
    given = [entry for entry in entries if entry not in alone]
    return [*(alone or [Entry(ALONE, _alone(first.recipe), first.source)]), *given]


def _check_names(entries: Sequence[Entry]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        where = entry.recipe.where("name", value=True)
        if entry.name in seen:
            raise RequestError(
                f"{seen[entry.name]} and {entry.source} have one name, {entry.name}, and each needs a folder",
                where=where,
                fix=f'name = "{entry.name}-2" in one of them',
            )
        if entry.name in _TAKEN:
            raise RequestError(
                f"no recipe of a comparison can be called {entry.name}: a folder of its own has this name",
                where=where,
                fix=f'name = "my-{entry.name}"',
            )
        seen[entry.name] = entry.source


def _check_budget(first: Entry, other: Entry) -> None:
    """Refuses other data, another student, another number of steps."""
    one, two = _budget(first.recipe), _budget(other.recipe)
    for key in dict.fromkeys([*one, *two]):
        ours, theirs = one.get(key), two.get(key)
        if ours != theirs:
            parts: list[str | int] = list(key.split("."))
            raise RequestError(
                f"{first.name} and {other.name} cannot be compared: {key} is {_shown(ours)} and "
                f"{_shown(theirs)}",
                where=other.recipe.where(*parts, value=True) or first.recipe.where(*parts, value=True),
                fix=f"the same {key} in both, as --set {key}=VALUE",
            )


def _budget(recipe: Recipe) -> dict[str, Any]:
    """What must be equal, by dotted key."""
    data = recipe.data.model_dump(exclude={"root"})
    students = [spec.model_dump() for spec in recipe.all_students()]
    different = [spec for number, spec in enumerate(students) if spec not in students[:number]]
    train = {key: getattr(recipe.train, key) for key in ("epochs", "batch_size")}
    found = {"data": data, "train": train, "student": different[0]}
    return {**dict(_flat(found, "")), **({"students": different} if different[1:] else {})}


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, Mapping) and part:
            yield from _flat(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part


def _shown(value: Any) -> str:
    return _NONE if value in (None, [], {}) else json.dumps(value)


def differences(entries: Sequence[Entry]) -> list[str]:
    """What else differs between the recipes and may matter, a sentence each; the methods aside."""
    given = [entry for entry in entries if entry.name != ALONE]
    said = []
    for other in given[1:]:
        one, two = _beside(given[0].recipe), _beside(other.recipe)
        if not (given[0].recipe.all_teachers() and other.recipe.all_teachers()):
            one, two = _without_teachers(one), _without_teachers(two)
        said += [
            f"{given[0].name} and {other.name} differ in {key}: {_shown(one.get(key))} and "
            f"{_shown(two.get(key))}"
            for key in dict.fromkeys([*one, *two])
            if one.get(key) != two.get(key)
        ]
    return said


def _beside(recipe: Recipe) -> dict[str, Any]:
    """What may differ and is said, by dotted key."""
    teachers = [spec.model_dump(exclude={"accept_chance"}) for spec in recipe.all_teachers()]
    for spec, made in zip(recipe.all_teachers(), teachers, strict=True):
        made["train"] = recipe.training_of(spec).model_dump() if spec.weights == "train" else {}
    named = {"teacher": teachers[0]} if len(teachers) == 1 else {"teachers": teachers} if teachers else {}
    found = {
        "train": recipe.train.model_dump(exclude={"epochs", "batch_size", "checkpoint_seconds"}),
        "cache": recipe.cache.model_dump(include={"dtype", "top_k"}),
        "machine": recipe.machine.model_dump(include={"device", "precision"}),
        **named,
    }
    return dict(_flat(found, ""))


def _without_teachers(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not key.startswith(("teacher.", "teachers"))}


def _alone(first: Recipe) -> Recipe:
    """The recipe of the plain student."""
    given = first.given()
    kept = {key: value for key, value in given.items() if key not in ("teacher", "teachers", "students")}
    kept |= {"name": ALONE, "method": {"name": _PLAIN}}
    kept["student"] = first.all_students()[0].model_dump(exclude_unset=True)
    groups = given.get("train", {}).get("groups", {})
    if groups:  # of the groups that a method trains, the plain student is one
        kept["train"] = {**kept["train"], "groups": {n: g for n, g in groups.items() if n == "student"}}
    return Recipe(**kept)
