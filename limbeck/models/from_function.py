"""Networks from a function or class of the user's own, `module:function`. Code of theirs is run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.errors import RequestError, nearest
from limbeck.models.building import Architecture, Raw, arguments, check_options

_LIBRARIES = ("timm", "torchvision", "hf")


def build(architecture: Architecture, *, run_code: bool = True) -> Raw:
    """Calls the function with what it declares of num_classes, channels, size and the options.

    Args:
        architecture: its spec is `module:function`.
        run_code: whether the module may lie anywhere; else only in the folder that we are in.

    Raises:
        RequestError: no such module or function, an option that it does not declare, or no network returned.
    """
    spec = architecture.spec
    function = find(spec, run_code=run_code)
    network = function(**_arguments(function, architecture))
    if not isinstance(network, nn.Module):
        raise RequestError(
            f"{spec} returned a {type(network).__name__}; needed a torch.nn.Module",
            fix="a function that builds a network and returns it",
        )
    return Raw(network, notes=[f"the model comes from code of yours, {spec}, which was run"])


def _arguments(function: Callable[..., Any], architecture: Architecture) -> dict[str, Any]:
    size = architecture.size
    side: Any = size[0] if len(size) == 2 and size[0] == size[1] else size
    given = {"num_classes": architecture.num_classes, "channels": architecture.channels, "size": side}
    known = arguments(function)
    takes_all = any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(function).parameters.values()
    )
    if not takes_all:
        check_options(architecture.spec, architecture.options, [name for name in known if name not in given])
    values = {name: value for name, value in given.items() if name in known} | dict(architecture.options)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in values:
            raise RequestError(
                f"{architecture.spec} needs {name!r}, which nothing gives",
                fix=f"options = {{ {name} = ... }}; given unasked: {', '.join(given)}",
            )
    return values


def find(spec: str, *, run_code: bool = True) -> Callable[..., Any]:
    """Imports what `module:function` names; a module beside the recipe is found as `python -m` would."""
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if not run_code:
        _refuse_elsewhere(spec, module_name, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _missing(spec, module_name, error, here) from error
    function = getattr(module, name, None)
    if not callable(function):
        near = nearest(name, [key for key, value in vars(module).items() if callable(value)])
        raise RequestError(f"{spec}: {module_name} has no function or class {name!r}", near=near)
    return function  # type: ignore[no-any-return]


def _refuse_elsewhere(spec: str, module_name: str, here: str) -> None:
    """A folder from elsewhere may name any module of this machine; only those in our folder are ours."""
    first = importlib.util.find_spec(module_name.partition(".")[0])
    origin = "" if first is None or not first.has_location else str(first.origin)
    if not origin or Path(here) not in Path(origin).resolve().parents or "site-packages" in origin:
        raise RequestError(
            f"the model is built by {spec}, code that does not lie in the folder {here}",
            fix="if you trust it: limbeck.load(FOLDER, run_code=True)",
        )


def _missing(spec: str, module_name: str, error: ModuleNotFoundError, here: str) -> RequestError:
    if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
        return RequestError(f"{spec}: {module_name} imports {error.name}, which is not installed")
    library, _, name = spec.partition(":")
    near = [f"{kind}:{name}" for kind in nearest(library, _LIBRARIES)]
    return RequestError(
        f"model {spec!r}: there is no module {module_name!r}",
        near=near[1:],
        fix=near[0] if near else f"a file {module_name.replace('.', '/')}.py in {here}",
    )
