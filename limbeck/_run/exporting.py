"""`limbeck export`: files for the device from a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch

from limbeck._export import files
from limbeck._measure import timing
from limbeck._recipe.sections import Export
from limbeck._run.export import SCRIPT, Exported, export, judge
from limbeck._run.finish import final_data
from limbeck._run.folder import RunFolder, newest, opened
from limbeck._run.session import open_session
from limbeck._show import figures
from limbeck._show.tables import Table
from limbeck.errors import RequestError
from limbeck.models.folder import load

FORMATS = ("torch", "onnx")


@dataclass(frozen=True)
class Exports:
    """What was exported; shows itself as a table.

    Attributes:
        folder: of the run.
        files: by key of run.json what it says of each.
        failed: what went wrong with those that are missing.
        score: of the run: split and kind.
        wanted: formats and options.
    """

    folder: Path
    files: Mapping[str, Mapping[str, Any]]
    failed: Sequence[str]
    score: Mapping[str, Any]
    wanted: Export

    @property
    def table(self) -> Table:
        """A row a file: size, score, difference, latency (p95) in ms."""
        threads = torch.get_num_threads()
        head = ("file", "dtype", ">size", f">{self.score['split']}", ">differs", ">1 thread")
        several = (f">{threads} threads",) if threads > 1 else ()
        rows = [self._row(about, threads) for about in self.files.values()]
        notes = [f"latency: median (p95) of one sample in ms, {timing.processor()}"] if rows else []
        notes += [
            f"int8: {about['verdict']}; {about['calibration_samples']:,} training samples to calibrate"
            for about in self.files.values()
            if "verdict" in about
        ]
        return Table((*head, *several), rows, notes)

    def _row(self, about: Mapping[str, Any], threads: int) -> list[str]:
        difference = about.get("difference")
        cells = [
            Path(about["file"]).name,
            about["dtype"],
            figures.size(about["bytes"]),
            figures.score(self.score["kind"], about["score"]),
            "" if difference is None else f"{difference:.0e}",
            _milliseconds(about["latency"]),
        ]
        return [*cells, _milliseconds(about["latency_threads"])] if threads > 1 else cells

    def text(self) -> str:
        """The table, then where the files are."""
        lines = [self.table.text()] if self.files else []
        if self.wanted.preprocessing == "none":
            lines.append("preprocessing is left to the caller; config.json of the student has it")
        shown = [each["file"] for each in self.files.values()]
        shown += [SCRIPT] if any(name.endswith(".onnx") for name in shown) else []
        return "\n".join([*lines, *(f"{self.folder.as_posix()}/{name}" for name in shown)])

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "schema": 1,
            "folder": self.folder.as_posix(),
            "export": self.wanted.model_dump(),
            "files": {key: dict(about) for key, about in self.files.items()},
            "failed": list(self.failed),
        }

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.table.html() + f"<div>{escape(self.folder.as_posix())}</div>"


def _milliseconds(latency: Mapping[str, Any]) -> str:
    return f"{latency['median']:.2f} ({latency['p95']:.2f})"


def export_run(run: str | Path | None, changes: Mapping[str, Any]) -> Exports:
    """See `limbeck.export`.

    Args:
        run: its folder; the newest unless given.
        changes: of [export] of its recipe.
    """
    folder = opened(run) if run is not None else newest()
    if not folder.finished:
        raise RequestError(f"{folder} is not finished", fix=f"limbeck distill {folder} --resume")
    recipe = folder.recipe()
    wanted = _wanted(recipe.export, changes)
    student = load(folder.path, run_code=True)
    session = open_session(recipe)
    data, split = final_data(session)
    with folder.locked():
        made, failed = export(session, folder, student.network, data, wanted)
        found = {each.key: each.about for each in made}
        if made:
            _timed(folder, made, session.splits.train.batch([0])["inputs"])
        judge(found, session.splits.task.kind)
        _remember(folder, found)
    return Exports(folder.path, found, failed, {"split": split, "kind": session.splits.task.kind}, wanted)


def _wanted(own: Export, changes: Mapping[str, Any]) -> Export:
    wanted = own.model_copy(update=dict(changes))
    if wanted.preprocessing not in ("graph", "none"):
        raise RequestError(
            f"--preprocessing {wanted.preprocessing}: it is in the graph or left out",
            fix="--preprocessing graph, or none",
        )
    if not wanted.to:
        raise RequestError("no format to export to", fix=f"--to {','.join(FORMATS)}")
    if changes.get("int8") and "onnx" not in wanted.to:
        raise RequestError("int8 is made from the ONNX file", fix=f"--to {','.join([*wanted.to, 'onnx'])}")
    return wanted


def as_points(value: float | str) -> float:
    """Points of a score as a number.

    Raises:
        RequestError: it is none, or below 0.
    """
    try:
        points = float(value)
    except ValueError:
        points = -1.0
    if not points >= 0:
        raise RequestError(f"--max-drop {value}: needed are points, 0 or more", fix="--max-drop 1")
    return points


def _timed(folder: RunFolder, made: Sequence[Exported], inputs: Any) -> None:
    """Latency of one sample with 1 and with all threads, the files in turn."""
    everything = torch.get_num_threads()
    for threads, key in ((1, "latency"), (everything, "latency_threads")):
        calls = {each.key: _call(folder.path / each.file, threads, inputs) for each in made}
        runtimes = {each.key: each.runtime for each in made}
        for name, latency in timing.in_turn(calls, threads=threads, runtimes=runtimes).items():
            about = next(each.about for each in made if each.key == name)
            about[key] = latency.stored()
            if key == "latency":
                about["latency_seconds"] = latency.median / 1000


def _call(file: Path, threads: int, inputs: Any) -> Callable[[], object]:
    network = files.ready(file, threads).network
    if isinstance(inputs, Mapping):
        return lambda: network(**inputs)
    return lambda: network(inputs)


def _remember(folder: RunFolder, found: Mapping[str, Mapping[str, Any]]) -> None:
    """run.json with the files as they are now."""
    run = folder.figures()
    run["networks"] = {**run["networks"], **found}
    names = [about["file"] for about in found.values()]
    names += [SCRIPT] if any(name.endswith(".onnx") for name in names) else []
    run["files"] = list(dict.fromkeys([*run["files"], *names]))
    folder.write_figures({key: value for key, value in run.items() if key != "schema"})


def as_formats(text: str) -> list[str]:
    """`torch,onnx` as a list.

    Raises:
        RequestError: there is no such format.
    """
    from limbeck.errors import nearest

    found = [part.strip() for part in text.split(",") if part.strip()]
    for name in found:
        if name not in FORMATS:
            near = nearest(name, FORMATS)
            raise RequestError(
                f"--to {text}: there is no format {name!r}", near=near, fix=f"--to {','.join(FORMATS)}"
            )
    return found
