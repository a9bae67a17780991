"""The command `limbeck`: arguments in, calls of the package, text out. Imports no torch by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import typer

from limbeck._cli import cache, check, compare, distill, export, lists, measure, predict, report
from limbeck._cli.app import app
from limbeck._run import console
from limbeck._run.console import Manner
from limbeck.errors import Interrupted, LimbeckError, RequestError, nearest

__all__ = ["app", "main"]

#: Modules whose import lets a verb join the app, in the order in which `--help` lists the verbs.
VERBS = (distill, check, cache, compare, report, export, measure, predict, lists)
_PLACE = {module.__name__: number for number, module in enumerate(VERBS)}
app.registered_commands.sort(key=lambda command: _PLACE[command.callback.__module__])

_FLAGS = {
    "--json": "json",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--debug": "debug",
}


def _manner(arguments: Sequence[str]) -> tuple[list[str], Manner]:
    """Takes the flags that every verb has out of the arguments, wherever they stand."""
    kept: list[str] = []
    found: dict[str, bool] = {}
    valued = {
        name
        for verb in _verbs().values()
        for option in verb.params
        if not getattr(option, "is_flag", True)
        for name in option.opts
    }
    for number, argument in enumerate(arguments):
        if argument == "--":
            kept += arguments[number:]
            break
        value = number > 0 and arguments[number - 1] in valued
        if argument in _FLAGS and not value:
            found[_FLAGS[argument]] = True
        else:
            kept.append(argument)
    return kept, Manner(**found)


def _verbs() -> dict[str, Any]:
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _usage(error: Any, arguments: Sequence[str]) -> RequestError:
    """A wrong command line in our words."""
    verbs = _verbs()
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
        fix = near[0] if near else "limbeck --help"
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
