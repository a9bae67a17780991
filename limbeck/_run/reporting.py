"""The verb `report`: from run folders to the page about them."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import limbeck
from limbeck._report.facts import Page
from limbeck._report.page import GENERATOR, render
from limbeck._run import plots
from limbeck._run.details import details_of
from limbeck._run.folder import RunFolder, newest, opened
from limbeck._run.settings import Settings, ToldRun
from limbeck._run.verdicts import judge
from limbeck._show import figures
from limbeck.errors import RequestError

_FILE = "report.html"
_MOST = 8  # runs whose details are on one page


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        path: of the file.
        page: what it says.
        findings: of the runs, as plain values.
        folders: of its runs.
        bytes: of the file.
    """

    path: Path
    page: Page
    findings: Sequence[Mapping[str, Any]]
    folders: tuple[str, ...]
    bytes: int

    def text(self) -> str:
        """The file and its verdict."""
        lines = [f"{self.path.as_posix()}   {figures.size(self.bytes)}", self.page.verdict]
        lines += [f"warning: {text}" for text in self.page.warnings]
        lines += [f"{each.severity} {each.code}: {each.message}" for each in self.page.findings]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": 1,
            "file": self.path.as_posix(),
            "bytes": self.bytes,
            "runs": list(self.folders),
            "verdict": self.page.verdict,
            "warnings": list(self.page.warnings),
            "findings": [dict(each) for each in self.findings],
        }

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in self.text().splitlines())
        return f"<div>{lines}</div>"


def report(runs: Sequence[str | Path], output: str | Path | None) -> Report:
    """See `limbeck.report`."""
    folders = [opened(path) for path in dict.fromkeys(map(Path, runs))] if runs else [newest()]
    for folder in folders:
        if not folder.finished:
            raise RequestError(f"{folder} is not finished", fix=f"limbeck distill {folder} --resume")
    path = _place(folders, output)
    page, findings = page_of([ToldRun.read(folder, folder.figures()) for folder in folders])
    return _written(page, findings, folders, path)


def finished_page(folder: RunFolder, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Writes the page of a run that comes to its end, and the data behind its pictures.

    Args:
        folder: of the run.
        run: what run.json will hold.

    Returns:
        The findings of the run, for run.json.
    """
    told = ToldRun.read(folder, run)
    page, findings = page_of([told])
    plots.write(folder, page, told.found)
    _written(page, findings, [folder], folder.path / _FILE)
    return findings


def page_of(runs: Sequence[ToldRun]) -> tuple[Page, list[dict[str, Any]]]:
    """What a page says of some runs, and all findings as plain values.

    Raises:
        RequestError: their scores are of different kinds.
    """
    settings = Settings.of(runs)
    judged = judge(settings)
    first = runs[0].run
    shown = runs[:_MOST]
    left = len(runs) - len(shown)
    notes = [*settings.notes(), *([f"Details of the first {_MOST} of {len(runs)} runs."] if left else [])]
    page = Page(
        title=settings.title(),
        about=settings.about(),
        verdict=judged.verdict,
        kind=first["score"]["kind"],
        score_name=first["score"]["name"].replace("_", " "),
        split=first["score"]["split"],
        samples=first["score"]["samples"],
        version=limbeck.__version__,
        numbers=judged.numbers,
        seeds=judged.seeds,
        warnings=judged.warnings,
        findings=judged.findings,
        models=settings.models(),
        notes=notes,
        helped=judged.helped,
        validation=settings.validation(),
        terms=settings.terms(),
        runs=[details_of(each.folder, each.run, each.label(settings), each.found) for each in shown],
    )
    return page, judged.stored


def _place(folders: Sequence[RunFolder], output: str | Path | None) -> Path:
    """Where the page goes: into the folder of the run, of several beside their folders."""
    if output is None:
        if len(folders) == 1:
            return folders[0].path / _FILE
        return Path(os.path.commonpath([folder.path.absolute().parent for folder in folders])) / _FILE
    path = Path(output)
    if path.is_dir():
        raise RequestError(f"{output} is a folder", fix=f"--output {(path / _FILE).as_posix()}")
    if path.is_file() and GENERATOR not in path.read_text("utf-8", errors="replace")[:4000]:
        raise RequestError(f"{output} is there and is no report of limbeck", fix="--output with another file")
    return path


def _written(
    page: Page, findings: Sequence[Mapping[str, Any]], folders: Sequence[RunFolder], path: Path
) -> Report:
    text = render(page)
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="ascii", newline="\n")
        os.replace(draft, path)
    except OSError as error:
        raise RequestError(
            f"{path.as_posix()} cannot be written: {error.strerror or error}",
            fix="--output with another file",
        ) from error
    return Report(path, page, findings, tuple(map(str, folders)), len(text))
