"""What there is: methods, recipes. Answered from files of the package, without importing torch."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck._recipe.shelf import measured, method_entries, recipe_names, recipe_text
from limbeck._show.tables import Table

TEACHER = {
    "none": "not used",
    "outputs": "its outputs",
    "weights": "its outputs and weights",
    "live": "the live network",
    "trained": "trained along",
}


@dataclass(frozen=True)
class Listing:
    """A list of objects that shows itself as a table, in a console and in a notebook.

    Args:
        kind: the key under which `to_json` gives the objects, as "methods".
        entries: the objects.
        table: how they are shown.
    """

    kind: str
    entries: Sequence[Mapping[str, Any]]
    table: Table

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        return self.entries[number]

    def to_json(self) -> dict[str, Any]:
        """One object, with the version of its form under `schema`."""
        return {"schema": 1, self.kind: list(self.entries)}

    def __repr__(self) -> str:
        return self.table.text(80)

    def _repr_html_(self) -> str:
        return self.table.html()


def list_methods() -> Listing:
    """All methods with paper, needs and what they use of the teacher."""
    rows = [
        (
            entry["slug"],
            TEACHER[entry["teacher"]],
            entry["title"],
            ", ".join(entry["tasks"]),
        )
        for entry in method_entries()
    ]
    notes = ("", "limbeck methods SLUG shows one: equations, hyper-parameters, what stays at inference")
    return Listing("methods", method_entries(), Table(("method", "teacher", "what", "for"), rows, notes))


def method_text(entry: Mapping[str, Any], width: int = 80) -> str:
    """The card of one method as text."""
    facts = {
        "for": ", ".join(entry["tasks"]),
        "needs": ", ".join(entry["needs"]),
        "teacher": TEACHER[entry["teacher"]],
        "deployed": entry["deployed"],
        "batch": "a sample's loss depends on the others of its batch" if entry["couples_batch"] else "",
        "read": entry["consulted"],
    }
    parameters = [
        (name, "" if (default := entry["defaults"].get(name)) is None else json.dumps(default), about)
        for name, about in entry["hyperparameters"].items()
    ]
    parts = [
        f"{entry['slug']}: {entry['title']}",
        textwrap.fill(entry["paper"], width),
        "",
        *(f"  {line}" for line in entry["equations"]),
        "",
        Table(("", ""), [(name, text) for name, text in facts.items() if text]).text(width).lstrip("\n"),
    ]
    if parameters:
        parts += ["", Table(("hyper-parameter", ">default", "meaning"), parameters).text(width)]
    if entry["inferred"]:
        parts += ["", "left open by the paper", *(_item(text, width) for text in entry["inferred"])]
    example = f"limbeck distill quickstart --set method.name={entry['slug']}"
    return "\n".join([*parts, "", example])


def _item(text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent="- ", subsequent_indent="  ")


def list_recipes() -> Listing:
    """The recipes of the package: data, networks, method, and what a run of them measured."""
    figures = measured()
    entries = [_recipe_entry(name, figures.get(name, {})) for name in recipe_names()]
    rows = [
        (
            entry["name"],
            entry["data"],
            entry["method"],
            f"{entry['alone']:.1f} %" if "alone" in entry else "",
            f"{entry['distilled']:.1f} %" if "distilled" in entry else "",
            f"{round(entry['seconds'] / 60)} min" if "seconds" in entry else "",
            entry["about"],
        )
        for entry in entries
    ]
    head = ("recipe", "data", "method", ">alone", ">distilled", ">time", "about")
    notes = ("", "limbeck recipes NAME > mine.toml copies one; limbeck distill takes the name or the file")
    return Listing("recipes", entries, Table(head, rows, notes))


def _recipe_entry(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    from limbeck.recipe import Recipe  # pydantic costs time that the other lists do not need

    text = recipe_text(name)
    recipe = Recipe.parse(text, f"{name}.toml")
    about = next((line[2:] for line in text.splitlines() if line.startswith("# ")), "")
    return {
        "name": name,
        "data": recipe.data.source,
        "method": recipe.method.name,
        "teacher": [network.model for network in recipe.all_teachers()],
        "student": [network.model for network in recipe.all_students()],
        "about": about,
        **figures,
    }
