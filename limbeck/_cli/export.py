"""`limbeck export`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from limbeck._cli.app import app, example, give_result, newest_run
from limbeck._run import console
from limbeck._run.console import Manner


@app.command(epilog=example("limbeck export runs/quickstart --to torch,onnx --int8 --max-drop 1"))
def export(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Folder of a finished run; else the newest.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMATS", help="torch,onnx; else the recipe's.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also an ONNX file in int8.")] = False,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", metavar="POINTS", help="Validation score that int8 may lose."),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option("--preprocessing", metavar="WHERE", help="graph (in the file) or none."),
    ] = None,
) -> None:
    """Write a student's files for the device, each checked."""
    from limbeck.run import export as write

    manner: Manner = context.obj
    if run is None:
        run = newest_run(manner)
    given: dict[str, Any] = {"to": to, "max_drop": max_drop, "preprocessing": preprocessing}
    done = write(run, int8=int8 or None, **given)
    if manner.json or done.files:
        give_result(manner, done)
    for text in done.failed:
        console.say(f"error: {text}")
    if done.failed:
        raise typer.Exit(1)
