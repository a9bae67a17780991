"""`limbeck cache`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from limbeck._cli.app import Changes, app, example, give_result, speaks
from limbeck._run.completion import complete_recipe
from limbeck._run.console import Manner
from limbeck.errors import RequestError


@app.command(epilog=example("limbeck cache mine.toml --dry-run"))
def cache(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe's file or name.", autocompletion=complete_recipe),
    ] = None,
    changes: Changes = None,
    verify: Annotated[
        str | None, typer.Option("--verify", metavar="DIR", help="Check every byte of a cache.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say size and time.")] = False,
) -> None:
    """Write the teacher's answers ahead of time, or check a cache."""
    from limbeck._run.screen import screen_for
    from limbeck.run import verify_cache, write_cache

    manner: Manner = context.obj
    if (recipe is None) == (verify is None):
        raise RequestError("limbeck cache needs a RECIPE, or --verify DIR", fix="limbeck cache --help")
    screen = screen_for(manner)
    done: Any
    if verify is not None:
        done = verify_cache(verify, screen=screen)
    else:
        assert recipe is not None
        done = write_cache(recipe, overrides=changes or (), dry_run=dry_run, screen=screen)
    if not speaks():
        return
    give_result(manner, done)
    if verify is not None and done.damaged:
        raise typer.Exit(1)
