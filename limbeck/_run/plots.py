"""The data behind the pictures of a report, as tables: `plots/*.csv` of the run."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any

from limbeck._report.answers import confusion
from limbeck._report.facts import Page
from limbeck._run.evidence import Evidence
from limbeck._run.folder import RunFolder

_Row = Sequence[Any]


def write(folder: RunFolder, page: Page, found: Evidence | None) -> None:
    """Writes a file a picture; one without rows is left out.

    Args:
        folder: of the run.
        page: about that run alone.
        found: its answers.
    """
    tables = {
        "models": (("model", "score", "parameters", "bytes", "latency_seconds"), _models(page)),
        "validation": (("training", "epoch", "score", "chosen"), _validation(page)),
        "terms": (("training", "term", "epoch", "value"), _terms(page)),
        "classes": (("class", "samples", "before", "after"), _classes(page)),
        "confusions": (("network", "class", "answer", "samples"), _confusions(page, found)),
        "reliability": (("network", "above", "up_to", "samples", "confidence", "right"), _bins(page)),
        "agreement": (("right", "samples"), _agreement(page)),
    }
    where = folder.path / "plots"
    where.mkdir(exist_ok=True)
    for name, (head, rows) in tables.items():
        held = list(rows)
        if held:
            with open(where / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([head, *held])


def _models(page: Page) -> Iterator[_Row]:
    for model in page.models:
        yield model.name, model.score, model.parameters, model.bytes, model.seconds


def _validation(page: Page) -> Iterator[_Row]:
    for curve in page.validation:
        for epoch, value in curve.points:
            yield curve.name, int(epoch), value, int(epoch == curve.chosen)


def _terms(page: Page) -> Iterator[_Row]:
    for training, curves in page.terms:
        for curve in curves:
            for epoch, value in curve.points:
                yield training, curve.name, int(epoch), value


def _classes(page: Page) -> Iterator[_Row]:
    for run in page.runs:
        for row in run.classes.rows if run.classes else ():
            yield row.name, row.samples, row.before, row.after


def _confusions(page: Page, found: Evidence | None) -> Iterator[_Row]:
    """The pairs of class and answer that occurred, of every network."""
    names = page.runs[0].classes.names if page.runs and page.runs[0].classes else ()
    if found is None or not names:
        return
    for key, answers in found.networks.items():
        counts = confusion(found.target, answers.predicted, len(names))
        for true, row in enumerate(counts):
            for said in row.nonzero()[0]:
                yield key, names[true], names[said], int(row[said])


def _bins(page: Page) -> Iterator[_Row]:
    for run in page.runs:
        for network in run.calibration:
            for each in network.bins:
                yield network.name, each.low, each.high, each.samples, each.confidence, each.accuracy


def _agreement(page: Page) -> Iterator[_Row]:
    for run in page.runs:
        if run.agreement is not None:
            yield "both", run.agreement.both
            yield "only the teacher", run.agreement.teacher
            yield "only the student", run.agreement.student
            yield "neither", run.agreement.neither
