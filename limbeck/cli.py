"""The command `limbeck`: arguments in, calls of the package, text out. Imports no torch by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any

import typer

import limbeck
from limbeck._recipe.shelf import method_entry, recipe_text
from limbeck._run import console, listings
from limbeck._run.completion import complete_key, complete_method, complete_recipe, complete_recipe_name
from limbeck._run.console import Manner
from limbeck.errors import Interrupted, LimbeckError, RequestError, nearest

EVERYWHERE = "Everywhere: --json one object on stdout; -q results only; -v more; --debug tracebacks."
_FLAGS = {
    "--json": "json",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--debug": "debug",
}
_WITH_VALUE = ("--set", "--output", "--verify", "--size", "--channels", "--classes")

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


def _example(line: str) -> str:
    return f"Example: {line}\n\n{EVERYWHERE}"


@app.command(epilog=_example("limbeck distill quickstart --set train.epochs=10 --dry-run"))
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
    if int(os.environ.get("RANK", "0")) > 0:
        return  # of several processes one speaks
    if manner.json:
        console.give_json(done.to_json())
    else:
        console.give(done.text())
    if not manner.json and done.finished and not manner.quiet:
        console.say(f"\n{done.next_text()}")
    if done.figures.get("failed"):
        raise typer.Exit(1)


@app.command(epilog=_example("limbeck cache mine.toml --dry-run"))
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
    if int(os.environ.get("RANK", "0")) > 0:
        return  # of several processes one speaks
    if manner.json:
        console.give_json(done.to_json())
    else:
        console.give(done.text())
    if verify is not None and done.damaged:
        raise typer.Exit(1)


@app.command(epilog=_example("limbeck recipes quickstart > mine.toml"))
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
        _give(context, listings.list_recipes())
    elif context.obj.json:
        read = Recipe.parse(recipe_text(name), f"{name}.toml")
        console.give_json({"schema": 1, "recipe": read.given(), "toml": recipe_text(name)})
    else:
        console.give(recipe_text(name).rstrip())


@app.command(epilog=_example("limbeck methods kd"))
def methods(
    context: typer.Context,
    slug: Annotated[str | None, typer.Argument(help="One to show.", autocompletion=complete_method)] = None,
) -> None:
    """List the methods, or show all about one."""
    if slug is None:
        _give(context, listings.list_methods())
        return
    entry = method_entry(slug)
    if context.obj.json:
        console.give_json({"schema": 1, "method": dict(entry)})
    else:
        console.give(listings.method_text(entry))


def _give(context: typer.Context, listing: listings.Listing) -> None:
    if context.obj.json:
        console.give_json(listing.to_json())
    else:
        console.give(listing.table.text(_width()))


def _width() -> int:
    """Columns to fold at: the terminal's; nothing is folded in a pipe."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0


@app.command(epilog=_example("limbeck layers cnn-tiny --size 28 --channels 1"))
def layers(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model as in a recipe, or a student/ folder.")],
    size: Annotated[int | None, typer.Option("--size", help="Side of a picture in pixels.")] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="1 grey, 3 colour.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Number of outputs.")] = None,
) -> None:
    """List the layers of a model: what to name in taps."""
    from limbeck.run import list_layers

    _give(context, list_layers(model, size=size, channels=channels, classes=classes))


def _manner(arguments: Sequence[str]) -> tuple[list[str], Manner]:
    """Takes the flags that every verb has out of the arguments, wherever they stand."""
    kept: list[str] = []
    found: dict[str, bool] = {}
    for number, argument in enumerate(arguments):
        if argument == "--":
            kept += arguments[number:]
            break
        value = number > 0 and arguments[number - 1] in _WITH_VALUE
        if argument in _FLAGS and not value:
            found[_FLAGS[argument]] = True
        else:
            kept.append(argument)
    return kept, Manner(**found)


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _usage(error: Any, arguments: Sequence[str]) -> RequestError:
    """A wrong command line in our words."""
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    verb = next((part for part in arguments if not part.startswith("-")), "")
    command = f"limbeck {verb}" if verb in verbs else "limbeck"
    help_line = f"{command} --help"
    match type(error).__name__:
        case "NoSuchOption":
            known = [name for parameter in error.ctx.command.params for name in parameter.opts]
            near = nearest(error.option_name, [*known, *_FLAGS, "--help"])
            return RequestError(
                f"{command} has no flag {error.option_name}",
                near=near[1:],
                fix=near[0] if near else help_line,
            )
        case "MissingParameter":
            return RequestError(
                f"{command} needs {error.param.metavar or error.param.name.upper()}", fix=help_line
            )
        case "BadOptionUsage":
            return RequestError(f"{error.option_name} needs a value", fix=help_line)
        case "BadParameter":
            name = max(error.param.opts, key=len)
            return RequestError(f"{name} needs a whole number", fix=help_line)
    if verb not in verbs:
        near = nearest(verb, verbs)
        fix = near[0] if near else f"one of {', '.join(verbs)}"
        return RequestError(f"limbeck has no verb {verb!r}", near=near[1:], fix=fix)
    return RequestError(f"{command} takes fewer words than were given", fix=help_line)


def _no_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last resort for what no one foresaw: one line, exit code 1."""
    said = str(error).strip().splitlines()
    console.say(f"error: {kind.__name__}{f': {said[0]}' if said else ''}")
    console.say("  fix: the same with --debug shows where; it is also in log.txt of the run")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and leaves with its exit code: 0, 1, 2, 130 or 143."""
    console.prepare()
    words, manner = _manner(sys.argv[1:] if arguments is None else arguments)
    if not manner.debug:
        sys.excepthook = _no_traceback
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # module:function of the user's
    sys.exit(_run(words, manner))


def _run(words: Sequence[str], manner: Manner) -> int:
    try:
        # Not `app(...)`, which would put its own hook for exceptions in place of ours.
        command = typer.main.get_command(app)
        code = command(args=words, prog_name="limbeck", obj=manner, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Interrupted as error:
        console.say(f"{error.message}\n  go on: {error.fix}" if error.fix else error.message)
        return error.exit_code
    except LimbeckError as error:
        return _failed(error, manner)
    except _UsageError as error:
        return _failed(_usage(error, words), manner)
    except KeyboardInterrupt:
        console.say("stopped before anything was written")
        return 130
    except BrokenPipeError:
        # Whoever read has enough; the flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _failed(error: LimbeckError, manner: Manner) -> int:
    if error.fix is None and error.near:
        error.fix, error.near = error.near[0], error.near[1:]
    if manner.debug:
        sys.__excepthook__(type(error), error, error.__traceback__)
    console.complain(error)
    return error.exit_code
