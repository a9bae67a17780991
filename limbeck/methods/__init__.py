"""The methods: one file a paper. The table maps a slug to its class, which is imported when asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from limbeck.errors import RequestError, nearest

if TYPE_CHECKING:
    from limbeck.method import Method

METHODS: dict[str, str] = {
    "cmkd": "limbeck.methods.cmkd:CMKD",
    "kd": "limbeck.methods.kd:KD",
    "lshfm": "limbeck.methods.lshfm:LSHFM",
    "mhkd": "limbeck.methods.mhkd:MHKD",
    "mlkd": "limbeck.methods.mlkd:MLKD",
    "peer_mutual_kd": "limbeck.methods.peer_mutual_kd:PeerMutualKD",
    "plain": "limbeck.methods.plain:Plain",
    "semckd": "limbeck.methods.semckd:SemCKD",
    "simkd": "limbeck.methods.simkd:SimKD",
    "sskd": "limbeck.methods.sskd:SSKD",
    "uhkd": "limbeck.methods.uhkd:UHKD",
    "unikd": "limbeck.methods.unikd:UniKD",
}

#: Several of them at once; it takes methods in place of networks, so no recipe names it.
COMBINATION = "limbeck.methods.combination:Combination"


def resolve(name: str) -> type[Method]:
    """The class of a method.

    Args:
        name: a slug of the table, or `module:Class` of the user's own.

    Raises:
        RequestError: no such slug, module or class, or the class is not a `Method` with a card.
    """
    if ":" not in name:
        if name not in METHODS:
            raise RequestError(
                f"there is no method {name!r}",
                near=nearest(name, METHODS) or sorted(METHODS),
                fix='a slug of `limbeck methods`, or "module:Class" of your own',
            )
        name = METHODS[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise RequestError(
            f"there is no module {module!r} for the method {name!r}",
            fix="run from the folder that holds it, or install it",
        ) from error
    return _checked(name, found)


def _checked(name: str, found: Any) -> type[Method]:
    from limbeck.method import Card, Method

    if not (isinstance(found, type) and issubclass(found, Method)):
        what = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise RequestError(f"{name} is {what}, and no subclass of limbeck.Method")
    if not isinstance(getattr(found, "card", None), Card):
        raise RequestError(f"{name!r} has no card", fix="card = limbeck.Card(slug=..., ...)")
    return found


def __getattr__(name: str) -> Any:
    """The class by its own name: `from limbeck.methods import KD`."""
    for target in (*METHODS.values(), COMBINATION):
        module, _, attribute = target.partition(":")
        if attribute == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
