"""`limbeck predict`: teacher and student, or a file, side by side on the user's own samples."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck._export import files
from limbeck._measure.timing import latencies
from limbeck._run import finished
from limbeck._run.folder import RunFolder, newest
from limbeck._show import figures
from limbeck._show.tables import Table
from limbeck.errors import RequestError, RunError
from limbeck.models.folder import load
from limbeck.models.loaded import Answer, Loaded

MOST = 5  # answers shown
_RUNS, _WARMUPS = 5, 1


@dataclass(frozen=True)
class Sample:
    """One input with what every model answers.

    Attributes:
        name: path, row or sentence.
        answers: by model, likeliest first.
        seconds: by model, of one call.
    """

    name: str
    answers: Mapping[str, Sequence[Answer]]
    seconds: Mapping[str, float]

    def told(self, kind: str) -> str:
        """In words whether the models agree."""
        if kind != "classes" or len(self.answers) < 2:
            return ""
        first = {model: answers[0] for model, answers in self.answers.items()}
        (one, (best, share)), *others = first.items()
        differ = [f"{model} {name} ({part:.0%})" for model, (name, part) in others if name != best]
        if differ:
            return f"they differ: {one} {best} ({share:.0%}), {', '.join(differ)}"
        return f"they agree: {best}"


@dataclass(frozen=True)
class Prediction:
    """Answers to samples; shows itself as tables.

    Attributes:
        samples: in the order given.
        kind: what an output means.
    """

    samples: Sequence[Sample]
    kind: str

    def tables(self) -> list[Table]:
        """A table a sample, a column a model."""
        return [_table(sample, self.kind) for sample in self.samples]

    def text(self) -> str:
        """All tables."""
        return "\n\n".join(table.text() for table in self.tables())

    def to_json(self) -> dict[str, Any]:
        """One object."""
        told = [
            {
                "input": sample.name,
                "answers": {
                    model: [{"name": name, "value": value} for name, value in answers]
                    for model, answers in sample.answers.items()
                },
                "seconds": dict(sample.seconds),
                "in_words": sample.told(self.kind),
            }
            for sample in self.samples
        ]
        return {"schema": 1, "kind": self.kind, "samples": told}

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return "".join(
            f"<div>{escape(sample.name)}</div>{table.html()}"
            for sample, table in zip(self.samples[:10], self.tables(), strict=False)
        )


def _table(sample: Sample, kind: str) -> Table:
    columns = [
        [_told(name, value, kind) for name, value in answers[:MOST]] for answers in sample.answers.values()
    ]
    rows = [
        [column[number] if number < len(column) else "" for column in columns]
        for number in range(max(map(len, columns)))
    ]
    rows.append([f"in {figures.latency(seconds)}" for seconds in sample.seconds.values()])
    notes = [text for text in (sample.told(kind),) if text]
    return Table([f"{model}" for model in sample.answers], rows, [*notes, f"input: {sample.name}"])


def _told(name: str, value: float, kind: str) -> str:
    return f"{name} {value:.4g}" if kind == "values" else f"{value:6.1%} {name}"


def predict(what: str | Path | None, inputs: Sequence[Any]) -> Prediction:
    """See `limbeck.predict`."""
    if not inputs:
        raise RequestError("nothing to predict", fix="limbeck predict RUN picture.png")
    reader, models = _models(what)
    told = []
    for name, sample in _samples(reader, inputs):
        given = _given(reader, name, sample)
        answers = {model: reader.answer(_logits(network, given)) for model, network in models.items()}
        told.append(Sample(name, answers, _times(models, given)))
    return Prediction(told, reader.kind)


def _models(what: str | Path | None) -> tuple[Loaded, dict[str, nn.Module]]:
    """What reads a sample, and the networks that answer, by name."""
    path = Path(what) if what is not None else newest().path
    if path.suffix in (".onnx", ".pt2"):
        loaded = files.ready(path)
        return loaded, {path.name: loaded.network}
    folder = RunFolder(path)
    if not folder.is_run:
        loaded = load(path)
        return loaded, {"student": loaded.network}
    loaded = finished.student(folder)
    return loaded, {**finished.teachers(folder), "student": loaded.network}


def _samples(reader: Loaded, inputs: Sequence[Any]) -> list[tuple[str, Any]]:
    """Each input with its name; a CSV file is its rows."""
    found: list[tuple[str, Any]] = []
    for each in inputs:
        if reader.reading["kind"] == "row" and isinstance(each, str | Path):
            found += _rows(Path(each), reader)
        elif isinstance(each, str | Path):
            found.append((str(each), each if reader.reading["kind"] != "image" else _there(Path(each))))
        else:
            found.append((f"input {len(found)}", each))
    return found


def _there(path: Path) -> Path:
    if not path.is_file():
        raise RequestError(f"there is no file {path}", fix="a picture, as boot.png")
    return path


def _rows(path: Path, reader: Loaded) -> list[tuple[str, Any]]:
    """The rows of a CSV file, by the columns that the student takes."""
    if not path.is_file():
        raise RequestError(f"there is no file {path}", fix="a CSV file with the columns of the training data")
    columns = [column["name"] for column in reader.reading["columns"]]
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            raise RequestError(
                f"{path} has no column {missing[0]!r}", fix=f"columns {', '.join(columns[:5])}"
            )
        return [(f"{path}, row {number}", row) for number, row in enumerate(table)]


def _given(reader: Loaded, name: str, sample: Any) -> Any:
    """A sample as inputs of a batch of one."""
    try:
        return reader.inputs(sample)[0]
    except RunError as error:
        said = error.message.partition(": ")[2] or error.message
        raise RequestError(f"{name} cannot be read: {said}", fix="a picture, as boot.png") from error


def _logits(network: nn.Module, given: Any) -> torch.Tensor:
    with torch.inference_mode():
        output = network(**given) if isinstance(given, Mapping) else network(given)
    logits: torch.Tensor = output if isinstance(output, torch.Tensor) else output.logits
    return logits.float()[0]


def _times(models: Mapping[str, nn.Module], given: Any) -> dict[str, float]:
    def call(network: nn.Module) -> Callable[[], object]:
        return lambda: _logits(network, given)

    calls = {name: call(network) for name, network in models.items()}
    found = latencies(calls, runs=_RUNS, warmups=_WARMUPS)
    return {name: latency.median / 1000 for name, latency in found.items()}
