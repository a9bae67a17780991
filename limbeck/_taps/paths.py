"""Names of values inside a network: the grammar of tap paths, and the modules that they name.

A path is `module[.input][#call][:part]...`, as `layer3`, `fc.input`, `relu#2`, `block:1`, `block:hidden`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck.errors import RequestError, nearest

#: Child names under which compilation, data parallelism and checkpointing keep the network they wrap.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
#: Our own wrapper: `body` beside nothing but the preprocessing.
_PREPROCESSED = {"body", "preprocessing"}
_GRAMMAR = re.compile(r"(?P<name>[^#:]+)(#(?P<call>[1-9][0-9]*))?(?P<parts>(:[^#:]+)*)")


@dataclass(frozen=True)
class TapPath:
    """A path taken apart.

    Args:
        text: the path as the user wrote it.
        name: the module, as in the module tree of the unwrapped network.
        module: the module itself.
        entering: the value that enters the module, not the one that leaves it.
        call: which call of the module, from 1; None where the path does not say.
        parts: the way into a tuple or mapping, outermost first.
    """

    text: str
    name: str
    module: nn.Module
    entering: bool
    call: int | None
    parts: tuple[str, ...]

    @property
    def layer(self) -> str:
        """The path without call and parts."""
        return f"{self.name}.input" if self.entering else self.name


def resolve(model: nn.Module, text: str) -> TapPath:
    """Finds the module that a path names; wrappers are transparent, a module named `input` wins.

    Raises:
        RequestError: the path breaks the grammar, or no module has the name; with the nearest names.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise RequestError(
            f"layer path {text!r} is not of the form module[.input][#call][:part]",
            fix='as "layer3", "fc.input", "relu#2" or "block:1"',
        )
    names = module_names(model)
    name, entering = match["name"], False
    found = _find(model, names, name)
    if found is None and name.endswith(".input"):
        entering = True
        found = _find(model, names, name.removesuffix(".input"))
    if found is None:
        raise _unknown(model, text, name, names)
    call = int(match["call"]) if match["call"] else None
    return TapPath(text, found, names[found], entering, call, tuple(match["parts"].split(":")[1:]))


def module_names(model: nn.Module) -> dict[str, nn.Module]:
    """Every module but the network itself, by its name in the unwrapped network; shared ones by each name."""
    names: dict[str, nn.Module] = {}
    for name, module in _walk(model, ""):
        names.setdefault(name, module)
    return names


def _walk(
    module: nn.Module, prefix: str, above: tuple[nn.Module, ...] = ()
) -> Iterator[tuple[str, nn.Module]]:
    above = (*above, module)
    for child_name, child in module._modules.items():
        if child is None or child in above:  # a module may hold the one that holds it
            continue
        name = prefix if _is_wrapper(module, child_name) else f"{prefix}.{child_name}".lstrip(".")
        if name:
            yield name, child
        yield from _walk(child, name, above)


def _is_wrapper(module: nn.Module, child_name: str) -> bool:
    """Whether a module does nothing but wrap the child of this name."""
    if child_name == "body":
        return _PREPROCESSED.issuperset(module._modules.keys())
    return child_name in _WRAPPERS and len(module._modules) == 1


def plain(model: nn.Module) -> nn.Module:
    """The network inside wrappers of compilation and data parallelism, its preprocessing kept."""
    for name, inner in model._modules.items():
        if inner is not None and name in ("module", "_orig_mod") and _is_wrapper(model, name):
            return plain(inner)
    return model


def _find(model: nn.Module, names: Mapping[str, nn.Module], name: str) -> str | None:
    """The name in the unwrapped network for a name that the user may have read off a wrapped one."""
    if name in names:
        return name
    full = dict(model.named_modules(remove_duplicate=False))
    if name in full:
        return next((known for known, module in names.items() if module is full[name]), None)
    bare = _without_wrappers(name)
    same = [known for known in names if _without_wrappers(known) == bare]
    return same[0] if len(same) == 1 else None


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in (*_WRAPPERS, "body"))


def _unknown(model: nn.Module, text: str, name: str, names: Mapping[str, nn.Module]) -> RequestError:
    kind = type(plain(model)).__name__
    if not names:
        return RequestError(f"{kind} has no layer {text!r}: it holds no modules at all")
    parent = next((p for p in _ancestors(name) if p in names), "")
    inside = [known for known in names if known.rpartition(".")[0] == parent]
    near = nearest(name, names) or inside or [parent]
    return RequestError(f"{kind} has no layer {text!r}", near=near, fix="list all with `limbeck layers`")


def _ancestors(name: str) -> Iterator[str]:
    """`a.b.c` -> `a.b`, `a`."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def nearest_fired(name: str, fired: list[str]) -> list[str]:
    """Of the layers that were called, those closest to a name: what holds it, its siblings, like names."""
    above = [known for known in _ancestors(name) if known in fired]
    parent = name.rpartition(".")[0]
    beside = [known for known in fired if known != name and known.rpartition(".")[0] == parent]
    return list(dict.fromkeys([*above, *nearest(name, fired), *beside]))[:5]


def select(path: TapPath, whole: Any) -> Tensor:
    """The tensor that a path means in what a module takes or returns: its part, else the first tensor.

    Raises:
        RequestError: there is no such part, or no tensor in it.
    """
    value = whole
    for part in path.parts:
        value = _entry(path, value, part)
    found = first_tensor(value)
    if found is None:
        raise RequestError(
            f"layer {path.text!r} gives {type(value).__name__}, which holds no tensor",
            near=[f"{path.layer}:{key}" for key in _keys(whole)],
            fix="name the part that is a tensor" if _keys(whole) else "tap another layer",
        )
    return found


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in nested mappings, tuples and lists, depth first."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            found = first_tensor(item)
            if found is not None:
                return found
    return None


def _entry(path: TapPath, value: Any, part: str) -> Any:
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, (tuple, list)):
        if part.isdigit() and int(part) < len(value):
            return value[int(part)]
        if part in getattr(value, "_fields", ()):  # a named tuple
            return getattr(value, part)
    if isinstance(value, Mapping) and part.isdigit() and int(part) in value:
        return value[int(part)]
    keys = _keys(value)
    raise RequestError(
        f"layer {path.text!r}: {type(value).__name__} has no part {part!r}"
        + (f"; its parts are {', '.join(keys)}" if keys else ""),
        near=[f"{path.layer}:{key}" for key in keys] if len(path.parts) == 1 else (),
    )


def _keys(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    return [str(i) for i in range(len(value))] if isinstance(value, (tuple, list)) else []
