"""`limbeck check`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck._cli.app import Changes, app, example, give_result, speaks
from limbeck._run import console
from limbeck._run.completion import complete_recipe
from limbeck._run.console import Manner
from limbeck.errors import RequestError


@app.command(epilog=example("limbeck check mine.toml"))
def check(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe's file or name.", autocompletion=complete_recipe),
    ] = None,
    changes: Changes = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="CODE", help="What a code means, as K104.")
    ] = None,
) -> None:
    """Find what is wrong with a recipe by one dry step; train nothing."""
    manner: Manner = context.obj
    if (recipe is None) == (explain is None):
        raise RequestError("limbeck check needs a RECIPE, or --explain CODE", fix="limbeck check --help")
    if explain is not None:
        _explain(explain, manner)
        return
    assert recipe is not None
    from limbeck._run.screen import screen_for
    from limbeck.run import check as run

    done = run(recipe, overrides=changes or (), screen=screen_for(manner))
    if not speaks():
        return
    give_result(manner, done)
    if done.errors:
        raise typer.Exit(1)


def _explain(code: str, manner: Manner) -> None:
    from limbeck._findings import CATALOGUE, explain

    text = explain(code)
    if manner.json:
        console.give_json({"schema": 1, **CATALOGUE[code.strip().upper()].stored()})
    else:
        console.give(text)
