"""`limbeck measure`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck._cli.app import app, example, give_result, newest_run
from limbeck._run.console import Manner


@app.command(epilog=example("limbeck measure runs/quickstart --output figures.json"))
def measure(
    context: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL|RUN|FILE", help="One or several; else the newest run."),
    ] = None,
    size: Annotated[int | None, typer.Option("--size", help="Side of a picture in pixels.")] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="1 grey, 3 colour.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="FILE", help="Store the figures as JSON.")
    ] = None,
    other_machine: Annotated[
        bool, typer.Option("--other-machine", help="Show stored figures of another machine, too.")
    ] = False,
) -> None:
    """Measure latency, memory, size of models and files."""
    from limbeck.run import measure as run

    manner: Manner = context.obj
    if not what:
        what = [newest_run(manner)]
    done = run(what, size=size, channels=channels, output=output, other_machine=other_machine)
    give_result(manner, done)
