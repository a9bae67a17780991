"""`limbeck compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck._cli.app import Changes, app, example, give_result, speaks
from limbeck._run import console
from limbeck._run.completion import complete_recipe
from limbeck._run.console import Manner
from limbeck.errors import RequestError


@app.command(epilog=example("limbeck compare fashion-kd fashion-semckd --seeds 5 --dry-run"))
def compare(
    context: typer.Context,
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE...", help="Recipes' files or names.", autocompletion=complete_recipe),
    ],
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="N|A,B", help="How many seeds, or which: 5 or 3,7.")
    ] = "3",
    changes: Changes = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DIR", help="Folder; else runs/compare-NAMES.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Runs at once; threads are divided.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan; write nothing.")] = False,
) -> None:
    """Compare recipes with each other and the student alone."""
    from limbeck._run.screen import screen_for
    from limbeck.run import compare as run

    manner: Manner = context.obj
    done = run(
        recipes,
        seeds=seeds_of(seeds),
        overrides=changes or (),
        output=output,
        jobs=jobs,
        dry_run=dry_run,
        screen=screen_for(manner),
    )
    if not speaks():
        return
    give_result(manner, done)
    if not manner.json and done.figures and not manner.quiet:
        console.say(f"\n{done.next_text()}")
    if done.failed:
        raise typer.Exit(1)


def seeds_of(text: str) -> int | list[int]:
    """`5`: how many; `3,7`, or `3,` for one: which.

    Raises:
        RequestError: it is neither.
    """
    try:
        return [int(part) for part in text.split(",") if part.strip()] if "," in text else int(text)
    except ValueError:
        raise RequestError(
            f"--seeds {text}: needed is how many, or which", fix="--seeds 5, or --seeds 3,7"
        ) from None
