"""The app that the verbs join, and what they share. Imports no torch by itself."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Protocol

import typer

import limbeck
from limbeck._run import console
from limbeck._run.completion import complete_key
from limbeck._run.console import Manner
from limbeck._run.listings import Listing

EVERYWHERE = "Everywhere: --json one object on stdout; -q results only; -v more; --debug tracebacks."

#: `--set`, of every verb that takes a recipe.
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key.", autocompletion=complete_key),
]

app = typer.Typer(
    name="limbeck",
    help="Distil a big trained model into a small one: measured, exported.",
    epilog=f"Start: limbeck distill quickstart\n\n{EVERYWHERE}",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        console.give(f"limbeck {limbeck.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        console.give(context.get_help())


def example(line: str) -> str:
    """The end of a verb's help."""
    return f"Example: {line}\n\n{EVERYWHERE}"


def speaks() -> bool:
    """Whether this is the process that speaks, of several that work on one run."""
    return int(os.environ.get("RANK", "0")) == 0


class Result(Protocol):
    """What a verb returns."""

    def text(self) -> str:
        """For people."""

    def to_json(self) -> dict[str, Any]:
        """For programs."""


def give_result(manner: Manner, done: Result) -> None:
    """A result on stdout, or as JSON."""
    if manner.json:
        console.give_json(done.to_json())
    else:
        console.give(done.text())


def newest_run(manner: Manner) -> str:
    """The folder of the newest run, which is named."""
    from limbeck._run.folder import newest

    run = str(newest())
    if not manner.quiet:
        console.say(f"the newest run: {run}")
    return run


def give_listing(context: typer.Context, listing: Listing) -> None:
    """A table on stdout, or as JSON."""
    if context.obj.json:
        console.give_json(listing.to_json())
    else:
        console.give(listing.table.text(_width()))


def _width() -> int:
    """Columns to fold at: the terminal's; nothing is folded in a pipe."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
