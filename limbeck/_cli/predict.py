"""`limbeck predict`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck._cli.app import app, example, give_result
from limbeck._run.console import Manner


@app.command(epilog=example("limbeck predict runs/quickstart boot.png"))
def predict(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="RUN|FILE", help="A run, a student/ folder or a file.")],
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Pictures, CSV files or sentences.")
    ],
) -> None:
    """Show what teacher and student say of your own samples."""
    from limbeck.run import predict as ask

    manner: Manner = context.obj
    done = ask(what, inputs)
    give_result(manner, done)
