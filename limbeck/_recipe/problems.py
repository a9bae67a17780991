"""What is wrong with a recipe, in our words: from a failed validation to one message with its fix."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from limbeck._recipe.toml import Path, dump_value
from limbeck.errors import RequestError, nearest

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LISTS = (list, tuple, collections.abc.Sequence)
_TABLES = (dict, collections.abc.Mapping)
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def dotted(path: Path) -> str:
    """`train.epochs` for a path; list items by their number."""
    return ".".join(str(part) for part in path)


def explain(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[str, Any],
    where: Callable[[Path, bool], str],
) -> RequestError:
    """The first problem of a failed validation as a message with place and fix.

    Args:
        error: what pydantic found.
        model: the type that was asked for.
        data: what was given.
        where: the place of a key (False) or of its value (True), by path.
    """
    found = min(error.errors(include_url=False), key=_rank)
    path = _path(found["loc"], data)
    if found["type"] == "extra_forbidden":
        return unknown_key(path, keys_at(model, path[:-1]), where(path, False))
    if found["type"] == "missing":
        missing = (*path, str(found["loc"][-1])) if path != found["loc"] else path
        return _missing(missing, model, where(missing, False))
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return RequestError(cause.message, fix=cause.fix, near=cause.near, where=where(path, True))
    if isinstance(cause, ValueError):
        return RequestError(_sentence(path, str(cause)), where=where(path, True), fix=_example(model, path))
    return _wrong_value(path, model, data, where(path, True), found.get("ctx", {}))


def _missing(path: Path, model: type[BaseModel], where: str) -> RequestError:
    annotation = annotation_at(model, path)
    for table in members(annotation):
        if isinstance(table, type) and issubclass(table, BaseModel):
            line = next(
                (_example(model, (*path, key)) for key, f in table.model_fields.items() if f.is_required()),
                "",
            )
            return RequestError(
                f"there is no table [{dotted(path)}]", where=where, fix=f"[{dotted(path)}] with {line}"
            )
    needed = describe(annotation)
    return RequestError(
        f"{dotted(path)} is missing: it needs {needed}", where=where, fix=_example(model, path)
    )


def unknown_key(path: Path, known: Sequence[str], where: str) -> RequestError:
    """The message for a key that the table does not have; its fix is the nearest name."""
    near = nearest(str(path[-1]), known)
    if near:
        fix = near[0]
    elif known:
        fix = f"remove it; known here: {', '.join(list(known)[:5])}"
    else:
        fix = "remove it: nothing is accepted here"
    return RequestError(f"unknown key {dotted(path)}", where=where, near=near[1:], fix=fix)


def _sentence(path: Path, said: str) -> str:
    return said if dotted(path) in said or not path else f"{dotted(path)}: {said}"


def _rank(entry: Any) -> tuple[int, int]:
    """Unknown keys first (a misspelt key also makes a required one look missing), then the deepest."""
    return {"extra_forbidden": 0, "missing": 2}.get(entry["type"], 1), -len(entry["loc"])


def _path(location: Sequence[str | int], data: Any) -> Path:
    """The part of a pydantic location that names keys of the data, not members of a union."""
    path: list[str | int] = []
    for part in location:
        if isinstance(data, Mapping) and part in data:
            data = data[str(part)]
        elif isinstance(data, Sequence) and not isinstance(data, str) and isinstance(part, int):
            data = data[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _wrong_value(
    path: Path, model: type[BaseModel], data: Mapping[str, Any], where: str, limits: Mapping[str, Any]
) -> RequestError:
    value = value_at(data, path)
    annotation = annotation_at(model, path)
    for name, words in _LIMITS.items():
        if name in limits:
            needed = f"{words} {limits[name]} is needed"
            fix = _example(model, path)
            if fix is None or not fix.startswith(f"{path[-1]} = "):
                fix = f"{describe(annotation)}, {words} {limits[name]:g}"
            return RequestError(f"{dotted(path)} is {shown(value)}: {needed}", where=where, fix=fix)
    fix = _example(model, path)
    if isinstance(value, str):
        near = nearest(value, choices(annotation))
        if near:
            fix = dump_value(near[0])
        elif _number(value) is not None and ("number" in describe(annotation)):
            fix = f"{path[-1]} = {value}, without quotes"
    return RequestError(
        f"{dotted(path)} needs {describe(annotation)}, not {shown(value)}", where=where, fix=fix
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def shown(value: Any) -> str:
    """A value as it would stand in the recipe, cut to a line's part."""
    if isinstance(value, Mapping):
        return "a table"
    text = dump_value(value)
    return text if len(text) <= 40 else text[:37] + "..."


def value_at(data: Any, path: Path) -> Any:
    """The value that stands at a path of nested tables and lists; None where there is none."""
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(str(part))
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def annotation_at(model: type[BaseModel], path: Path) -> Any:
    """The type a path of a recipe must have; Any inside a free table, None where there is no such key."""
    annotation: Any = model
    for part in path:
        annotation = _step(annotation, part)
    return annotation


def _step(annotation: Any, part: str | int) -> Any:
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            field = member.model_fields.get(str(part))
            if field is not None:
                return _of_field(field)
            if member.model_config.get("extra") == "allow":
                return Any
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if isinstance(part, int) and origin in _LISTS:
            return arguments[0] if arguments else Any
        if isinstance(part, str) and origin in _TABLES:
            return arguments[1]
        if member is Any:
            return Any
    return None


def _of_field(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def members(annotation: Any) -> list[Any]:
    """The alternatives of a type: those of a union, without None and without annotations."""
    if typing.get_origin(annotation) is Annotated:
        return members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [part for whole in typing.get_args(annotation) for part in members(whole)]
    return [] if annotation in (None, type(None)) else [annotation]


def choices(annotation: Any) -> list[str]:
    """The words that a type names one by one."""
    literals = [part for part in members(annotation) if typing.get_origin(part) is Literal]
    return [word for part in literals for word in typing.get_args(part) if isinstance(word, str)]


def describe(annotation: Any) -> str:
    """A type in words, as `a whole number or "auto"`."""
    words: list[str] = []
    for member in members(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if origin is Literal:
            words += [dump_value(choice) for choice in arguments]
        elif origin in _LISTS:
            inner = describe(arguments[0]) if arguments else "values"
            words.append(f"a list of {inner}" if " or " not in inner else f"a list ({inner} each)")
        else:
            words.append(_WORDS.get(member, "a table"))
    words = list(dict.fromkeys(words))
    if not words:
        return "a value"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def keys_at(model: type[BaseModel], path: Path) -> list[str]:
    keys: list[str] = []
    for member in members(annotation_at(model, path)):
        if isinstance(member, type) and issubclass(member, BaseModel):
            keys += list(member.model_fields)
    return keys


def _example(model: type[BaseModel], path: Path) -> str | None:
    """A line that would pass: the default, or the first example of the field."""
    table = annotation_at(model, path[:-1]) if path else None
    for member in members(table):
        if not (isinstance(member, type) and issubclass(member, BaseModel)):
            continue
        field = member.model_fields.get(str(path[-1]))
        if field is not None and field.examples:
            return f"{path[-1]} = {dump_value(field.examples[0])}"
        if field is not None and isinstance(field.default, str | int | float | list | tuple):
            return f"{path[-1]} = {dump_value(field.default)}, the default"
    return f"give {describe(annotation_at(model, path))}" if path else None
