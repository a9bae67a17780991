"""Data from a function of the user's own."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from limbeck.data.assembly import PART_NAMES, Options, assemble
from limbeck.data.dataset import Dataset, Splits, as_dataset
from limbeck.errors import RequestError, nearest
from limbeck.task import Classification, Regression, Task

_FORMS = "Splits, (train, validation) or (train, validation, test), or a mapping of these names"
_KINDS = ("imagefolder", "csv", "parquet", "hf")


def user_source(source: str, options: Options) -> Splits:
    """`module:function`: runs code of the user's, which gets `root` and `seed` if it names them.

    It returns `Splits`, a tuple of two or three data sets, or a mapping of them by part, which may also hold
    `classes` (names) and `task`. Each data set is anything that `as_dataset` takes.
    """
    function = _function(source)
    given = {"root": options.root, "seed": options.seed}
    named = inspect.signature(function).parameters
    made = function(**{name: value for name, value in given.items() if name in named})
    note = f"the data come from code of yours, {source}, which was run"
    if isinstance(made, Splits):
        done = assemble(
            source, made.parts(), made.task, options, notes=[note, *made.notes], reading=made.reading
        )
        return replace(done, division=done.division or made.division)
    parts, classes, task = _parts(made, source)
    sets: dict[str, Dataset] = {part: as_dataset(data) for part, data in parts.items()}
    return assemble(source, sets, task or _task(sets, classes, source), options, notes=[note])


def _function(source: str) -> Callable[..., Any]:
    module_name, _, name = source.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # a module beside the recipe, as `python -m` would find it
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise RequestError(
                f"{source}: {module_name} imports {error.name}, which is not installed"
            ) from error
        near = [f"{kind}:{name}" for kind in nearest(module_name, _KINDS)]
        raise RequestError(
            f"data.source = {source!r}: there is no module {module_name!r}",
            near=near,
            fix=near[0] if near else f"a file {module_name.replace('.', '/')}.py in {here}",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        near = nearest(name, [key for key in vars(module) if not key.startswith("_")])
        raise RequestError(f"{source}: {module_name} has no function {name!r}", near=near)
    return cast(Callable[..., Any], function)


def _parts(made: Any, source: str) -> tuple[dict[str, Any], Sequence[str] | None, Task | None]:
    """What the function returned, by part, with class names and task where it gave them."""
    if isinstance(made, Mapping) and "train" in made:
        for key in made:
            if key not in (*PART_NAMES, "classes", "task"):
                known = [*PART_NAMES, "classes", "task"]
                raise RequestError(
                    f"{source} returned an unknown entry {key!r}", near=nearest(str(key), known)
                )
        parts = {part: made[part] for part in PART_NAMES if made.get(part) is not None}
        return parts, made.get("classes"), made.get("task")
    if isinstance(made, tuple) and 2 <= len(made) <= 3 and not isinstance(made[0], torch.Tensor):
        named = zip(PART_NAMES, made, strict=False)
        return {part: data for part, data in named if data is not None}, None, None
    if isinstance(made, Dataset):
        return {"train": made}, None, None
    held = f" of {len(made)}" if isinstance(made, (tuple, list)) else ""
    raise RequestError(f"{source} returned a {type(made).__name__}{held}; needed {_FORMS}")


def _task(parts: Mapping[str, Dataset], classes: Sequence[str] | None, source: str) -> Task:
    """Regression for real-valued targets, else classification by names or by the largest training label."""
    targets = parts["train"].targets()
    if targets.is_floating_point():
        return Regression()
    if targets.ndim != 1:
        raise RequestError(
            f"{source}: targets of shape {tuple(targets.shape)} need a task", fix='"task": MyTask()'
        )
    number = int(targets.max()) + 1 if len(targets) else 0
    if number < 2:
        raise RequestError(
            f"{source}: the training targets have {max(number, 0)} classes; at least 2 are needed"
        )
    names = list(classes) if classes is not None else [str(label) for label in range(number)]
    largest = max((int(part.targets().max()) for part in parts.values() if len(part)), default=-1)
    if largest >= len(names):
        raise RequestError(f"{source}: a label {largest} with {len(names)} classes 0..{len(names) - 1}")
    return Classification(names)
