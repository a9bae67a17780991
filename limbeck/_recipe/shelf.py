"""Files of the package that name things: recipes, the index of methods. Light: completion reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from limbeck.errors import RequestError, nearest

SCHEMA_LINE = "#:schema limbeck.schema.json"


def recipe_names() -> list[str]:
    """Names of the recipes inside the package."""
    names = (entry.name for entry in resources.files("limbeck").joinpath("recipes").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """The TOML text of a recipe inside the package, its first line naming the schema.

    Raises:
        RequestError: there is none of this name.
    """
    if name not in recipe_names():
        near = nearest(name, recipe_names())
        raise RequestError(
            f"there is no recipe {name!r} in the package",
            near=near[1:],
            fix=near[0] if near else "limbeck recipes",
        )
    text = resources.files("limbeck").joinpath("recipes", f"{name}.toml").read_text("utf-8")
    return f"{SCHEMA_LINE}\n{text}"


def measured() -> Mapping[str, Mapping[str, Any]]:
    """What a run of each recipe gave: scores in per cent, seconds, machine."""
    text = resources.files("limbeck").joinpath("recipes", "measured.json").read_text("utf-8")
    found: Mapping[str, Mapping[str, Any]] = json.loads(text)["recipes"]
    return found


@cache
def method_entries() -> tuple[Mapping[str, Any], ...]:
    """The card of every method with the defaults of its hyper-parameters, from the generated index."""
    text = resources.files("limbeck").joinpath("methods", "index.json").read_text("utf-8")
    return tuple(json.loads(text)["methods"])


def method_names() -> list[str]:
    """The slugs of all methods."""
    return [entry["slug"] for entry in method_entries()]


def method_entry(slug: str) -> Mapping[str, Any]:
    """What the index says of a method: its card and the defaults of its hyper-parameters.

    Raises:
        RequestError: there is no such method; the fix is the nearest slug.
    """
    for entry in method_entries():
        if entry["slug"] == slug:
            return entry
    near = nearest(slug, method_names())
    raise RequestError(
        f"there is no method {slug!r}",
        near=near[1:],
        fix=near[0] if near else 'a slug of `limbeck methods`, or "module:Class" of your own',
    )
