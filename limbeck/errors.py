"""Errors that say what was given, what was needed and the likely fix."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType


class LimbeckError(Exception):
    """An error of limbeck: a message, the place it points at, the fix and near names.

    Args:
        message: one sentence: what was given and what was needed.
        fix: the likely fix, ready to type.
        near: names close to the one given, nearest first; at most five are shown.
        where: the place, as `file:line:column` or a layer path.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        fix: str | None = None,
        near: Sequence[str] = (),
        where: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.near = tuple(near)[:5]
        self.where = where

    def __str__(self) -> str:
        lines = [self.message]
        if self.where:
            lines.append(f"  {self.where}")
        if self.near:
            lines.append(f"  near: {', '.join(self.near)}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class RequestError(LimbeckError, ValueError):
    """The request was wrong: a recipe, a file, an argument or a shape. Exit code 2."""

    exit_code = 2


class RunError(LimbeckError, RuntimeError):
    """The run failed while it was under way. Exit code 1."""

    exit_code = 1


class Interrupted(LimbeckError):
    """The run was stopped by a signal and its state is saved. Exit code 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str, *, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.exit_code = 128 + signal_number


def nearest(word: str, options: Iterable[str], most: int = 5) -> list[str]:
    """The options that begin with `word`, then those close to it, at most `most`; empty if none is close."""
    names = list(dict.fromkeys(options))
    lowered = {name.lower(): name for name in names}
    begun = [name for name in lowered if len(word) > 2 and name.startswith(word.lower())]
    close = difflib.get_close_matches(word.lower(), lowered, n=most, cutoff=0.5)
    return [lowered[name] for name in dict.fromkeys([*begun, *close])][:most]


def require(module: str, extra: str, needed_by: str) -> ModuleType:
    """Imports an optional package.

    Args:
        module: import name, as `timm`.
        extra: the extra of limbeck that installs it, as `vision`.
        needed_by: what needs it, as `model "timm:resnet18"`.

    Raises:
        RequestError: the package is not installed; the fix is the install command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise RequestError(
            f"{needed_by} needs the package {module.split('.')[0]}, which is not installed",
            fix=f'pip install "limbeck[{extra}]"',
        ) from error
