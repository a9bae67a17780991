"""The folder of a run: its name, its lock, its files. Only checkpoints and exports write beside it.

run.json, resolved.toml and every line of metrics.jsonl are sealed: what a hand or a bad disk changed is
refused by name. recipe.toml is a person's to edit: nothing is read from it here.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from limbeck._seal import check_version, damaged, seal, seal_lines, text_of, unseal, unseal_lines
from limbeck.errors import Interrupted, RequestError
from limbeck.recipe import Recipe

SCHEMA = 1
RUNS = Path("runs")
_RECIPE, _RESOLVED, _FIGURES = _FILES = ("recipe.toml", "resolved.toml", "run.json")
_METRICS, _LOCK = "metrics.jsonl", ".lock"


class RunFolder:
    """A folder as a run keeps it.

    Args:
        path: it need not exist yet.
        writes: whether this process writes there; of several one does.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.echo: Callable[[str], None] | None = None  # hears every line of the log, too

    def __str__(self) -> str:
        return self.path.as_posix()

    @property
    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / _RESOLVED).is_file()

    @property
    def finished(self) -> bool:
        """Whether the run here came to its end."""
        return self.is_run and self.figures().get("state") == "finished"

    def figures(self) -> dict[str, Any]:
        """What run.json says; empty where no run was begun.

        Raises:
            RequestError: it is missing, damaged, or of a newer version.
        """
        found = self.read_sealed(_FIGURES, self._copy)
        if found is None and self.is_run:
            raise RequestError(f"the run {self} has no {_FIGURES}", fix=self._copy)
        return found or {}

    @property
    def _copy(self) -> str:
        """What to do where a file of the folder is not as it was written."""
        return f"restore it from a copy, or begin again: limbeck distill {self}/{_RECIPE} --output {self}-new"

    def recipe(self) -> Recipe:
        """The recipe with every choice made, as the run was begun with it.

        Raises:
            RequestError: the file was changed since; another recipe is another run.
        """
        path = self.path / _RESOLVED
        return Recipe.parse(unseal_lines(text_of(path, self._copy), path, self._copy), str(path))

    def begin(self, recipe: Recipe, resolved: Recipe, figures: Mapping[str, Any]) -> None:
        """Writes what a resume needs into the locked folder; resolved.toml comes last and makes it a run."""
        if not self.writes:
            return
        try:
            self.write(_RECIPE, recipe.source_text())
            self.write_figures(figures)
            self.settle(resolved)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> RequestError:
        return RequestError(
            f"the folder {self} cannot be written: {error.strerror or error}",
            fix="--output with another folder",
        )

    def settle(self, resolved: Recipe) -> None:
        """Writes resolved.toml, again where something was found out since the run began."""
        self.write(_RESOLVED, seal_lines(resolved.to_toml(defaults=True)))

    def write(self, name: str, text: str) -> None:
        """Writes a file whole or not at all."""
        if not self.writes:
            return
        draft = self.path / f".{name}.draft"
        draft.write_text(text, encoding="utf-8", newline="\n")
        os.replace(draft, self.path / name)

    def write_figures(self, figures: Mapping[str, Any]) -> None:
        """Writes run.json."""
        self.write_sealed(_FIGURES, figures)

    def write_sealed(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes an object that `read_sealed` reads."""
        self.write(name, seal({"schema": SCHEMA, **content}, indent=1))

    def read_sealed(self, name: str, fix: str) -> dict[str, Any] | None:
        """What `write_sealed` wrote; None where there is no such file.

        Args:
            name: of the file.
            fix: what to do where it is damaged.

        Raises:
            RequestError: it is damaged, or of a newer version.
        """
        path = self.path / name
        try:
            found = unseal(text_of(path, fix), path, fix)
        except FileNotFoundError:
            return None
        check_version(path, "schema", found["schema"], SCHEMA)
        return found

    def log(self, text: str) -> None:
        """Adds lines to log.txt, each with its time."""
        if not self.writes:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        if self.echo is not None:
            self.echo(text)
        with open(self.path / "log.txt", "a", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{stamp} {line}\n" for line in text.splitlines() or [""])

    def add_metrics(self, entry: Mapping[str, Any]) -> None:
        """Adds an entry to metrics.jsonl."""
        if not self.writes:
            return
        with open(self.path / _METRICS, "a", encoding="utf-8", newline="\n") as file:
            file.write(seal(entry))

    def metrics(self) -> list[dict[str, Any]]:
        """The entries of metrics.jsonl; of a run under way, without a last line that a kill cut short.

        Raises:
            RequestError: a line is damaged; the message has its number.
        """
        path = self.path / _METRICS
        try:
            *lines, rest = text_of(path, self._copy).split("\n")
        except FileNotFoundError:
            return []
        if rest and self.finished:
            raise damaged(f"{path}:{len(lines) + 1}", self._copy)
        return [unseal(f"{line}\n", f"{path}:{number}", self._copy) for number, line in enumerate(lines, 1)]

    def mend_metrics(self) -> None:
        """Takes the line that a kill cut short out of metrics.jsonl, so that the next does not join it."""
        self._write_metrics(self.metrics())

    def replace_metrics(self, phase: str, history: list[dict[str, Any]]) -> None:
        """Makes the entries of a phase equal to the history that its checkpoints hold."""
        kept = [entry for entry in self.metrics() if entry["phase"] != phase]
        self._write_metrics([*kept, *({"phase": phase, **entry} for entry in history)])

    def _write_metrics(self, entries: list[dict[str, Any]]) -> None:
        self.write(_METRICS, "".join(seal(entry) for entry in entries))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, made if absent, against a second process; the system lets go when this one dies.

        Raises:
            RequestError: another process holds it, or it cannot be written.
        """
        if not self.writes:
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / _LOCK, "a+", encoding="ascii")  # noqa: SIM115 - closed below
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            if not _take(file):
                file.seek(0)
                owner = file.read().strip() or "another one"
                raise RequestError(
                    f"another process works on {self}: {owner}", fix="wait for it, or give another --output"
                )
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def logged(self) -> ExitStack:
        """A block whose traceback goes to log.txt, whatever ends it early."""

        def note(
            kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            if isinstance(error, Interrupted):
                self.log(error.message)
            elif error is not None:
                self.log("".join(traceback.format_exception(kind, error, trace)).rstrip())

        stack = ExitStack()
        stack.push(note)
        return stack


def _take(file: IO[str]) -> bool:
    """Whether the lock of an open file could be taken; released when the file is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def choose(name: str, output: str | Path | None, source: str) -> tuple[RunFolder, str]:
    """The folder of a new run, and what is to be said about the choice.

    Args:
        name: of the recipe.
        output: a folder of the user's choice.
        source: the recipe as it was named, for the commands in the messages.

    Raises:
        RequestError: an unfinished run is there, or something that is no run.
    """
    if output is not None:
        folder = RunFolder(Path(output))
        if folder.finished:
            raise RequestError(
                f"{folder} holds a finished run, which is kept", fix="--output with another folder"
            )
        return free(folder, source), ""
    folder, number = RunFolder(RUNS / name), 1
    while folder.finished:
        number += 1
        folder = RunFolder(RUNS / f"{name}-{number}")
    before = f"{name} is finished and kept" if number == 2 else f"{name} to {name}-{number - 1} are kept"
    return free(folder, source), before if number > 1 else ""


def free(folder: RunFolder, source: str) -> RunFolder:
    """The folder, if a new run may begin in it.

    Raises:
        RequestError: an unfinished run is there, or something that is no run.
    """
    if folder.is_run:
        raise RequestError(
            f"{folder} holds a run that is not finished",
            fix=f"limbeck distill {folder} --resume, or limbeck distill {source} --output {folder}-new",
        )
    if folder.path.exists() and (not folder.path.is_dir() or not _only_begun(folder.path)):
        raise RequestError(f"{folder} is there and is no run of limbeck", fix="--output with another folder")
    return folder


def _only_begun(path: Path) -> bool:
    """Whether a folder is empty, or holds no more than a start that was cut short."""
    begun = {_RECIPE, _FIGURES, _LOCK, *(f".{name}.draft" for name in _FILES)}
    return {entry.name for entry in path.iterdir()} <= begun


def opened(path: str | Path) -> RunFolder:
    """A run by its folder.

    Raises:
        RequestError: there is none.
    """
    folder = RunFolder(Path(path))
    if not folder.is_run:
        raise RequestError(
            f"{folder} is no run: it has no {_RESOLVED}", fix="limbeck distill RECIPE makes one"
        )
    return folder


def newest() -> RunFolder:
    """The run under `runs/` that was begun or went on last.

    Raises:
        RequestError: there is none.
    """
    found = [RunFolder(path) for path in RUNS.iterdir() if path.is_dir()] if RUNS.is_dir() else []
    runs = [folder for folder in found if folder.is_run]
    if not runs:
        raise RequestError(f"there is no run in {RUNS}", fix="limbeck distill quickstart")
    return max(runs, key=lambda folder: (folder.path / _FIGURES).stat().st_mtime)
