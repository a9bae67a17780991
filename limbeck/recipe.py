"""A whole run as typed data: the recipe, the same in TOML and in Python.

Strict: a key that does not exist is refused at every depth, with the nearest name; a value of the
wrong type is refused with its place and the fix. Nothing here imports torch; what only torch can
tell (arguments of an optimizer, of a method's constructor) `limbeck.run` checks before it reads data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from limbeck._recipe import problems, toml
from limbeck._recipe.overrides import Change, apply_changes, read_changes
from limbeck._recipe.sections import (
    Cache,
    Data,
    Export,
    Log,
    Machine,
    MethodChoice,
    StudentNetwork,
    TeacherNetwork,
)
from limbeck._recipe.shelf import recipe_names, recipe_text
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, nearest

Where = Callable[[toml.Path, bool], str]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: Outside the fingerprint: they change speed, names and files, not what is computed.
_NOT_COMPUTED = {"name", "alone", "machine", "log", "export"}


class Recipe(BaseModel):
    """A whole run: data, networks, method, training.

    `Recipe.load` reads one from a file or by name; the constructor takes the tables as mappings.

    Raises:
        RequestError: an unknown key, a value of the wrong type, or two keys that exclude each other.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(examples=["quickstart"], description="Of the run; its folder is runs/NAME.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of every draw: weights, order, augmentation.")
    alone: bool = Field(default=True, description="Train the same student without a teacher, too.")
    data: Data
    teacher: TeacherNetwork | None = None
    teachers: list[TeacherNetwork] = Field(default_factory=list, description="Several, instead of [teacher].")
    student: StudentNetwork | None = None
    students: list[StudentNetwork] = Field(default_factory=list, description="Several, instead of [student].")
    method: MethodChoice = MethodChoice()
    train: Training = Training()
    cache: Cache = Cache()
    machine: Machine = Machine()
    log: Log = Log()
    export: Export = Export()

    _document: toml.Document | None = PrivateAttr(None)
    _changes: Sequence[Change] = PrivateAttr(())
    _left_out: Sequence[toml.Path] = PrivateAttr(())

    def __init__(self, /, **data: Any) -> None:
        self._fill(data, lambda path, value: "")

    def _fill(self, data: Mapping[str, Any], where: Where) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise problems.explain(error, Recipe, data, where) from None
        _check_together(self, where)

    @classmethod
    def load(cls, source: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Self:
        """Reads a recipe.

        Args:
            source: a TOML file, or the name of a recipe in the package (`limbeck recipes`).
            overrides: lines `a.b=VALUE` as after `--set`, or values by dotted key.
        """
        name, text = _find(source)
        return cls.parse(text, name, overrides)

    @classmethod
    def parse(cls, text: str, name: str, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Self:
        """Reads a recipe from a TOML text that messages call `name`."""
        document = toml.parse(text, name)
        changes = read_changes(overrides, cls)
        recipe = cls.__new__(cls)
        where = _places(document, changes)
        left_out = _of_another_method(document, changes)
        data = toml.without(document.data, left_out)
        recipe._fill(apply_changes(data, changes, cls), where)
        recipe._document, recipe._changes, recipe._left_out = document, changes, left_out
        return recipe

    def where(self, *path: str | int, value: bool = False) -> str | None:
        """`file:line:column` of a key, or the `--set` that gave it; None for a recipe made in Python."""
        if self._document is None:
            return None
        return _places(self._document, self._changes)(path, value)

    def line(self, where: str | None) -> str:
        """The text of the line at a place that `where` gave; empty for a `--set`, and for no place."""
        if self._document is None or where is None or not where.startswith(f"{self._document.name}:"):
            return ""
        number = int(where.rsplit(":", 2)[1])
        return self._document.text.splitlines()[number - 1].strip()

    def given(self) -> dict[str, Any]:
        """What was written, without defaults, as nested tables."""
        return self.model_dump(exclude_unset=True)

    @property
    def was_changed(self) -> bool:
        """Whether `--set` changed it."""
        return bool(self._changes)

    def to_toml(self, *, defaults: bool = False) -> str:
        """The recipe as TOML: what was written, or with every default. It reads back to an equal recipe."""
        return toml.dumps(self.model_dump() if defaults else self.given())

    def source_text(self) -> str:
        """The text as it was given, with the lines of `--set` in their places; comments are kept."""
        if self._document is None:
            return self.to_toml()
        changes = [(change.path, change.value) for change in self._changes]
        return toml.edit(toml.remove(self._document, self._left_out), changes, "--set").text

    def notes(self) -> list[str]:
        """What was done with the recipe that its reader should know."""
        if not self._left_out:
            return []
        names = ", ".join(problems.dotted(path) for path in self._left_out)
        return [f"{names} of the recipe belongs to the method that --set replaced, and is left out"]

    def training_of(self, teacher: TeacherNetwork) -> Training:
        """How a teacher is trained: [train], with the keys of its own table over it."""
        own = teacher.train.model_dump(exclude_unset=True)
        shared = self.train.model_dump(exclude_unset=True)
        shared.pop("groups", None)  # these are groups of the student's method
        for name in ("optimizer", "schedule"):
            if name in own:  # another one has other arguments
                shared.pop(f"{name}_options", None)
        return Training(**{**shared, **own})

    def all_teachers(self) -> list[TeacherNetwork]:
        """The teachers, however they were written."""
        return [self.teacher] if self.teacher else list(self.teachers)

    def all_students(self) -> list[StudentNetwork]:
        """The students, however they were written."""
        return [self.student] if self.student else list(self.students)

    def fingerprint(self) -> str:
        """SHA-256 of all that can change a result.

        Left out are name, alone, [machine], [log] and [export], where a cache lies and whether there is one.
        """
        kept = {key: value for key, value in self.model_dump().items() if key not in _NOT_COMPUTED}
        kept["cache"] = {key: kept["cache"][key] for key in ("dtype", "top_k", "temperatures")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]


def _of_another_method(document: toml.Document, changes: Sequence[Change]) -> list[toml.Path]:
    """The keys of [method] in the text that belong to another method than the one that `--set` names."""
    table = document.data.get("method")
    if not isinstance(table, dict):
        return []
    before, names = table.get("name", "kd"), [c.value for c in changes if c.path == ("method", "name")]
    if not names or names[-1] == before:
        return []
    return [("method", key) for key in table if key != "name"]


def _places(document: toml.Document, changes: Sequence[Change]) -> Where:
    def where(path: toml.Path, value: bool) -> str:
        for change in reversed(changes):
            if path[: len(change.path)] == change.path:
                return change.where
        return document.where(path, value=value)

    return where


def _check_together(recipe: Recipe, where: Where) -> None:
    """What no single key can tell."""
    if not _NAME.fullmatch(recipe.name):
        raise RequestError(
            f"name {recipe.name!r} cannot be a folder's name: letters, digits, dot, dash and underscore can",
            where=where(("name",), True),
            fix=f'name = "{re.sub("[^A-Za-z0-9._-]+", "-", recipe.name).strip("-.") or "my-run"}"',
        )
    for one, many in (("teacher", "teachers"), ("student", "students")):
        if getattr(recipe, one) is not None and getattr(recipe, many):
            raise RequestError(
                f"both [{one}] and [[{many}]] are given",
                where=where((many,), False),
                fix=f"one [{one}], or all of them as [[{many}]]",
            )
    if not recipe.all_students():
        raise RequestError(
            "there is no student", where=where((), False), fix='[student] with a line model = "cnn-tiny"'
        )
    if recipe.cache.mode == "require" and recipe.data.views == "fresh":
        raise RequestError(
            'data.views = "fresh" shows a new view every epoch, and cache.mode is "require"',
            where=where(("data", "views"), True),
            fix='views = "auto"',
        )


def _find(source: str | Path) -> tuple[str, str]:
    """Name for messages, and text, of a file or of a recipe of the package."""
    path = Path(source)
    named = isinstance(source, str) and len(path.parts) == 1 and path.suffix != ".toml"
    if named and source in recipe_names():
        return f"{source}.toml", recipe_text(str(source))
    try:
        return str(source), path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise _not_found(str(source), path) from None
    except IsADirectoryError:
        raise RequestError(
            f"{source} is a folder without resolved.toml, so it is no run",
            fix=f"limbeck distill {path / 'recipe.toml'}",
        ) from None
    except UnicodeDecodeError as error:
        raise RequestError(
            "a recipe is text in UTF-8, and this file is not",
            where=f"{source}: byte {error.start}",
            fix="save it as UTF-8",
        ) from None
    except OSError as error:
        raise RequestError(
            f"{source} cannot be read: {error.strerror}", fix="check the path and its rights"
        ) from None


def _not_found(source: str, path: Path) -> RequestError:
    beside = [str(path.parent / other.name) for other in sorted(path.parent.glob("*.toml"))]
    near = nearest(source, [*recipe_names(), *beside])
    return RequestError(
        f"there is no recipe {source}: neither a file nor a name of the package",
        near=near[1:],
        fix=near[0] if near else "limbeck recipes lists the names",
    )


def recipe_keys() -> dict[str, str]:
    """Every dotted key that `--set` accepts beside a method's own, with its meaning."""
    return dict(_keys(Recipe, ""))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        tables = [part for part in problems.members(field.annotation) if isinstance(part, type)]
        tables = [part for part in tables if issubclass(part, BaseModel)]
        for table in tables:
            yield from _keys(table, f"{prefix}{name}.")
        if not tables and name not in ("teachers", "students"):
            yield f"{prefix}{name}", field.description or ""


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "limbeck recipe"}
