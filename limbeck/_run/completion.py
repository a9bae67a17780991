"""What a TAB offers: recipes, runs, methods, keys of `--set`. Reads names only, imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from limbeck._recipe.shelf import method_entry, method_names, recipe_names


def complete_recipe(incomplete: str) -> list[str]:
    """Names of recipes, TOML files and run folders that go on from what was typed."""
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    files = sorted(str(path) for path in folder.glob("*.toml"))
    runs = sorted(str(path.parent) for path in folder.glob("*/resolved.toml"))
    top = sorted(str(path.parent) for path in Path().glob("runs/*/resolved.toml"))
    found = dict.fromkeys([*recipe_names(), *files, *runs, *top])
    return [name for name in found if name.startswith(incomplete)]


def complete_recipe_name(incomplete: str) -> list[str]:
    """Names of recipes that go on from what was typed."""
    return [name for name in recipe_names() if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Slugs that go on from what was typed."""
    return [slug for slug in method_names() if slug.startswith(incomplete)]


def complete_key(incomplete: str) -> list[tuple[str, str]]:
    """Keys of `--set` with their meaning; a method's own keys are those of all methods."""
    if incomplete.startswith("method.name="):
        return [(f"method.name={slug}", method_entry(slug)["title"]) for slug in method_names()]
    return [(f"{key}=", about) for key, about in _keys() if key.startswith(incomplete)]


def _keys() -> Iterator[tuple[str, str]]:
    from limbeck.recipe import recipe_keys

    yield from recipe_keys().items()
    seen = set()
    for slug in method_names():
        for name, about in method_entry(slug)["hyperparameters"].items():
            if name not in seen:
                seen.add(name)
                yield f"method.{name}", f"{slug}: {about}"
