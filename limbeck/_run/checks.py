"""What only torch can tell of a recipe: the method's own keys, arguments of optimizers, the machine.

All of it is checked before data or weights are read.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from limbeck._recipe import problems
from limbeck._recipe.toml import Path
from limbeck.engine import optimizers
from limbeck.engine.settings import Training
from limbeck.errors import RequestError, nearest
from limbeck.method import Method
from limbeck.methods import resolve
from limbeck.models.registry import check_spec
from limbeck.recipe import Recipe

#: What a run itself gives to a method's constructor.
_GIVEN = ("self", "student", "students", "teacher", "teachers", "task", "taps", "example")


@dataclass(frozen=True)
class Chosen:
    """A method as a recipe asks for it.

    Args:
        method: the class.
        hyperparameters: all of them, with the defaults of the constructor.
        changed: those that differ from the default.
        takes: names of the networks and other things that the constructor takes.
    """

    method: type[Method]
    hyperparameters: Mapping[str, Any]
    changed: Mapping[str, Any]
    takes: frozenset[str]


def check_recipe(recipe: Recipe) -> Chosen:
    """Refuses what would fail later, and gives the method.

    Raises:
        RequestError: with the place of the key.
    """
    chosen = _method(recipe)
    _training(recipe.train, recipe, ("train",))
    for path, teacher in _tables(recipe, "teacher"):
        _training(recipe.training_of(teacher), recipe, (*path, "train"))
    _networks(recipe, chosen)
    for path, spec in [*_tables(recipe, "teacher"), *_tables(recipe, "student")]:
        try:
            check_spec(spec.model)
        except RequestError as error:
            raise _placed(error, recipe.where(*path, "model", value=True)) from error
    _device(recipe)
    _trackers(recipe)
    _exporters(recipe)
    return chosen


def _tables(recipe: Recipe, role: str) -> list[tuple[Path, Any]]:
    """The tables of the teachers or students, with where they stand."""
    one = getattr(recipe, role)
    if one is not None:
        return [((role,), one)]
    return [((f"{role}s", number), spec) for number, spec in enumerate(getattr(recipe, f"{role}s"))]


def _method(recipe: Recipe) -> Chosen:
    try:
        method = resolve(recipe.method.name)
    except RequestError as error:
        error.fix = error.fix or "a subclass of limbeck.Method with a card"
        raise _placed(error, recipe.where("method", "name", value=True)) from error
    parameters = inspect.signature(method.__init__).parameters
    model = _model_of(method, parameters)
    given = dict(recipe.method.hyperparameters)

    def where(path: Path, value: bool) -> str:
        return recipe.where("method", *path[1:], value=value) or ""

    try:
        # As JSON, so that a list is also right where the constructor says tuple.
        values = model.model_validate_json(json.dumps({"method": given}))
    except ValidationError as error:
        raise problems.explain(error, model, {"method": given}, where) from None
    found = typing.cast(BaseModel, values.method)  # type: ignore[attr-defined]
    own = {name: getattr(found, name) for name in type(found).model_fields}
    changed = {name: value for name, value in own.items() if value != parameters[name].default}
    return Chosen(method, own, changed, frozenset(set(parameters) & set(_GIVEN)))


def _model_of(method: type[Method], parameters: Mapping[str, inspect.Parameter]) -> type[BaseModel]:
    """The hyper-parameters of a constructor as a type, in a table `method`."""
    hints = typing.get_type_hints(method.__init__)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
        if name not in _GIVEN
    }
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)
    inner = create_model(method.__name__, __config__=config, **fields)
    return create_model("Own", __config__=config, method=(inner, ...))


def _training(settings: Training, recipe: Recipe, prefix: Path) -> None:
    try:
        optimizers.check(settings)
    except RequestError as error:
        raise _placed(error, recipe.where(*prefix, *_culprit(settings, str(error)))) from error


def _culprit(settings: Training, said: str) -> Path:
    """The key of a training table that a message is about: the one whose name it quotes."""
    options: dict[Path, Mapping[str, Any]] = {
        ("optimizer_options",): settings.optimizer_options or {},
        ("schedule_options",): settings.schedule_options,
    }
    for name, group in settings.groups.items():
        options["groups", name, "optimizer_options"] = group.optimizer_options
    for path, given in options.items():
        for key in given:
            if repr(key) in said or f"{key}:" in said:
                return (*path, key)
    return ("schedule",) if said.startswith((settings.schedule, "there is no schedule")) else ("optimizer",)


def _networks(recipe: Recipe, chosen: Chosen) -> None:
    """As many teachers and students as the method takes."""
    card, name = chosen.method.card, recipe.method.name
    teachers, students = recipe.all_teachers(), recipe.all_students()
    where = recipe.where("method", "name", value=True)
    if not teachers and card.teacher in ("outputs", "weights", "live"):
        raise RequestError(
            f"{name} needs a teacher", where=where, fix='[teacher] with model = "resnet-small"'
        )
    if len(teachers) > 1 and "teachers" not in chosen.takes:
        raise RequestError(
            f"{name} takes one teacher; {len(teachers)} are given",
            where=recipe.where("teachers"),
            fix="one [teacher]",
        )
    if len(students) > 1 and "students" not in chosen.takes:
        raise RequestError(
            f"{name} trains one student; {len(students)} are given",
            where=recipe.where("students"),
            fix="one [student]",
        )
    if recipe.method.taps is not None and not card.taps:
        raise RequestError(
            f"{name} reads no layers", where=recipe.where("method", "taps"), fix="leave taps out"
        )


def _device(recipe: Recipe) -> None:
    name = recipe.machine.device
    if name == "auto":
        return
    where = recipe.where("machine", "device", value=True)
    kind = name.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in there:
        near = nearest(kind, there)
        raise RequestError(
            f"there is no device {name!r}", where=where, fix=near[0] if near else 'device = "auto"'
        )
    if not there[kind]:
        raise RequestError(
            f"this machine has no {kind} device that torch can use", where=where, fix='device = "auto"'
        )


def _exporters(recipe: Recipe) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if "onnx" in recipe.export.to and importlib.util.find_spec(name) is None:
            raise RequestError(
                f"export to ONNX needs the package {name}, which is not installed",
                where=recipe.where("export", "to"),
                fix='pip install "limbeck[export]", or --set export.to=[]',
            )


def _trackers(recipe: Recipe) -> None:
    if not recipe.log.to:
        return
    from accelerate.tracking import (
        LOGGER_TYPE_TO_CLASS,
        get_available_trackers,
    )

    known = sorted(LOGGER_TYPE_TO_CLASS)
    installed = {str(tracker) for tracker in get_available_trackers()}
    for number, name in enumerate(recipe.log.to):
        where = recipe.where("log", "to", number, value=True)
        if name not in known:
            near = nearest(name, known)
            raise RequestError(
                f"there is no tracker {name!r}", where=where, near=near[1:], fix=(near or known)[0]
            )
        if name not in installed:
            raise RequestError(
                f"log.to names {name}, which is not installed", where=where, fix=f"pip install {name}"
            )


def _placed(error: RequestError, where: str | None) -> RequestError:
    """The same message with its place; the nearest name is the fix where there is no other."""
    fix, near = error.fix, error.near
    if fix is None and near:
        fix, near = near[0], near[1:]
    return RequestError(error.message, fix=fix, near=near, where=error.where or where)
