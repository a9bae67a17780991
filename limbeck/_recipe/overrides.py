"""`--set a.b=VALUE`: one key of a recipe, its value in TOML, typed by the schema."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from limbeck._recipe import problems, toml
from limbeck.errors import RequestError


@dataclass(frozen=True)
class Change:
    """A key, its new value, and how a message points at it."""

    path: toml.Path
    value: Any
    where: str


def read_changes(given: Sequence[str] | Mapping[str, Any], model: type[BaseModel]) -> list[Change]:
    """The changes asked for.

    Args:
        given: lines `a.b=VALUE` of a command, or values by dotted key from Python.
        model: the type whose annotations type the values.
    """
    if isinstance(given, Mapping):
        return [Change(_path(key, key), value, f"overrides: {key}") for key, value in given.items()]
    return [_line(text, model) for text in given]


def _line(text: str, model: type[BaseModel]) -> Change:
    key, equals, written = text.partition("=")
    where = f"--set {text}"
    if not equals or not key.strip():
        raise RequestError("--set needs a key and a value", where=where, fix="--set train.epochs=20")
    if not written.strip():
        raise RequestError(
            f"--set {key} has no value", where=where, fix=f"--set {key}=VALUE, or {key}='\"\"' for empty text"
        )
    path = _path(key, where)
    return Change(path, _typed(written, problems.annotation_at(model, path)), where)


def _path(key: str, where: str) -> toml.Path:
    """Names of a dotted key; a number is a place in a list, from 0."""
    try:
        data: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError as error:
        raise RequestError(
            f"{key!r} is not a dotted key", where=where, fix="--set train.epochs=20"
        ) from error
    names: list[str | int] = []
    while isinstance(data, dict):
        ((name, data),) = data.items()
        names.append(int(name) if name.isdigit() else name)
    return tuple(names)


def _typed(written: str, annotation: Any) -> Any:
    """The TOML value; the bare text where it is no TOML, or where only text is accepted."""
    try:
        value = tomllib.loads(f"x = {written}")["x"]
    except tomllib.TOMLDecodeError:
        return written
    plain = not isinstance(value, str | list | dict)
    only_text = _accepts(annotation, written) and not _accepts(annotation, value)
    return written if plain and only_text else value


def _accepts(annotation: Any, value: Any) -> bool:
    if annotation is None:
        return False
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def apply_changes(
    data: Mapping[str, Any], changes: Sequence[Change], model: type[BaseModel]
) -> dict[str, Any]:
    """The data with the changes made; a key that the schema does not have is refused."""
    result = dict(data)
    for change in changes:
        _check(result, change, model)
        result = toml.assign(result, change.path, change.value)
    return result


def _check(data: Mapping[str, Any], change: Change, model: type[BaseModel]) -> None:
    for depth in range(1, len(change.path) + 1):
        part, above = change.path[depth - 1], change.path[: depth - 1]
        table = problems.value_at(data, above)
        if isinstance(part, int) and part >= (length := len(table) if isinstance(table, list) else 0):
            raise RequestError(
                f"{problems.dotted(above)} has {length} items, so there is no number {part}",
                where=change.where,
                fix=f"a number from 0 to {length - 1}"
                if length
                else f"give the whole list: --set {above[-1]}=[...]",
            )
        if problems.annotation_at(model, change.path[:depth]) is None:
            raise problems.unknown_key(change.path[:depth], problems.keys_at(model, above), change.where)
