"""`limbeck distill`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck._cli.app import Changes, app, example, give_result, speaks
from limbeck._run import console
from limbeck._run.completion import complete_recipe
from limbeck._run.console import Manner


@app.command(epilog=example("limbeck distill quickstart --set train.epochs=10 --dry-run"))
def distill(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN",
            help="A recipe's file or name, or the folder of a run.",
            autocompletion=complete_recipe,
        ),
    ],
    changes: Changes = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DIR", help="Folder of the run; else runs/NAME.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan; write nothing.")] = False,
) -> None:
    """Train teacher and student, distil, export, report."""
    from limbeck._run.screen import screen_for
    from limbeck.run import distill as run

    manner: Manner = context.obj
    done = run(
        recipe,
        overrides=changes or (),
        output=output,
        resume=resume,
        dry_run=dry_run,
        screen=screen_for(manner),
    )
    if not speaks():
        return
    give_result(manner, done)
    if not manner.json and done.finished and not manner.quiet:
        console.say(f"\n{done.next_text()}")
    if done.figures.get("failed"):
        raise typer.Exit(1)
