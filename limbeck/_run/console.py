"""What goes to the two streams: results to stdout, all else to stderr, in colour only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from limbeck.errors import LimbeckError

_RED, _YELLOW, _BOLD, _END = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Manner:
    """How a verb speaks; the same flags everywhere.

    Args:
        json: one object on stdout instead of text.
        quiet: nothing but results and errors.
        verbose: what goes to log.txt, too.
        debug: a traceback with every error.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


def steady(stream: TextIO) -> bool:
    """Whether lines stay as they are written: a pipe, a file, a dumb terminal, continuous integration."""
    return not stream.isatty() or os.environ.get("TERM") == "dumb" or bool(os.environ.get("CI"))


def coloured(stream: TextIO) -> bool:
    """Whether colours are wanted: a terminal, and no NO_COLOR."""
    return not steady(stream) and not os.environ.get("NO_COLOR")


def say(text: str, *, end: str = "\n") -> None:
    """Writes to stderr."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


def warn(text: str) -> None:
    """Writes a warning to stderr."""
    say(f"{_YELLOW}warning:{_END} {text}" if coloured(sys.stderr) else f"warning: {text}")


def give(text: str) -> None:
    """Writes a result to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def give_json(value: Mapping[str, Any]) -> None:
    """Writes one object to stdout."""
    give(json.dumps(value, indent=1))


def complain(error: LimbeckError) -> None:
    """Writes an error: what is wrong, where, the fix; five near names at most."""
    if coloured(sys.stderr):
        say(f"{_BOLD}{_RED}error:{_END} {error}")
    else:
        say(f"error: {error}")


def prepare() -> None:
    """Lets streams that are not UTF-8 take any text: what they lack is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
