"""`limbeck report`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck._cli.app import app, example, give_result, newest_run
from limbeck._run.console import Manner


@app.command(epilog=example("limbeck report runs/quickstart"))
def report(
    context: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Folders of finished runs; else the newest run."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="The page; else report.html in the run's folder."),
    ] = None,
) -> None:
    """Write one HTML page about a run, or about several side by side."""
    from limbeck.run import report as write

    manner: Manner = context.obj
    if not runs:
        runs = [newest_run(manner)]
    done = write(runs, output=output)
    give_result(manner, done)
