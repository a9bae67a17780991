"""`limbeck recipes`, `limbeck methods`, `limbeck layers`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck._cli.app import app, example, give_listing
from limbeck._recipe.shelf import method_entry, recipe_text
from limbeck._run import console, listings
from limbeck._run.completion import complete_method, complete_recipe_name


@app.command(epilog=example("limbeck recipes quickstart > mine.toml"))
def recipes(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="One to print; > copies it.", autocompletion=complete_recipe_name)
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a recipe.")] = False,
) -> None:
    """List the recipes of the package, or print one."""
    from limbeck.recipe import Recipe, recipe_schema

    if schema:
        console.give_json(recipe_schema())
    elif name is None:
        give_listing(context, listings.list_recipes())
    elif context.obj.json:
        read = Recipe.parse(recipe_text(name), f"{name}.toml")
        console.give_json({"schema": 1, "recipe": read.given(), "toml": recipe_text(name)})
    else:
        console.give(recipe_text(name).rstrip())


@app.command(epilog=example("limbeck methods kd"))
def methods(
    context: typer.Context,
    slug: Annotated[str | None, typer.Argument(help="One to show.", autocompletion=complete_method)] = None,
) -> None:
    """List the methods, or show all about one."""
    if slug is None:
        give_listing(context, listings.list_methods())
        return
    entry = method_entry(slug)
    if context.obj.json:
        console.give_json({"schema": 1, "method": dict(entry)})
    else:
        console.give(listings.method_text(entry))


@app.command(epilog=example("limbeck layers cnn-tiny --size 28 --channels 1"))
def layers(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model as in a recipe, or a student/ folder.")],
    size: Annotated[int | None, typer.Option("--size", help="Side of a picture in pixels.")] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="1 grey, 3 colour.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Number of outputs.")] = None,
) -> None:
    """List the layers of a model: what to name in taps."""
    from limbeck.run import list_layers

    give_listing(context, list_layers(model, size=size, channels=channels, classes=classes))
