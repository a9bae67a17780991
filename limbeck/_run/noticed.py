"""Findings of finished runs: what their figures do not carry, and what in them disappoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from limbeck._findings import Finding, found
from limbeck._report.facts import Comparison
from limbeck._run import closing
from limbeck._run.settings import Settings, ToldRun
from limbeck._show import figures

#: Said at the top of a page, beside the verdict that they weaken.
OF_THE_VERDICT = ("R101", "R102")

_INT8_LOSS = 0.01  # of a share, from which an int8 file is called worse
_FELL = 0.02  # of a share after the chosen epoch
_OFF = 0.10  # calibration error from which confidence misleads
_LATE = 20  # the last epochs are this part of all


def noticed(settings: Settings, helped: Sequence[Comparison]) -> list[Finding]:
    """All findings: first of settings and their comparisons, then of single runs.

    Args:
        settings: the runs.
        helped: as `settings.helped` gives them.
    """
    told = [*_one_seed(settings), *_compared(helped)]
    for run in settings.runs:
        place = str(run.folder) if len(settings.runs) > 1 else None
        for finding in (*_of_training(run), *_of_scores(run), *_of_files(run)):
            told.append(found(finding[0], finding[1], place))
    return told


def _one_seed(settings: Settings) -> Iterator[Finding]:
    single = [group for group in settings.groups if len(group) == 1]
    if not single:
        return
    names = ""
    if len(settings.groups) > 1:
        names = f" each of {', '.join(settings.label(group) for group in single)}"
    noises = [noise for group in single if (noise := _chance(group[0])) is not None]
    kind = settings.runs[0].run["score"]["kind"]
    beside = f"; a difference below {figures.points(kind, max(noises))} may be chance" if noises else ""
    yield found("R101", f"one seed{names}{beside}", fix="limbeck compare RECIPE --seeds 5")


def _chance(run: ToldRun) -> float | None:
    """What the finite test set makes of two equal students; None where it cannot be told."""
    alone = run.alone()
    if alone is None or run.is_alone:
        return None
    score = run.run["score"]
    return closing.chance(score["kind"], alone, run.network("distilled")["score"], score["samples"])


def _compared(helped: Sequence[Comparison]) -> Iterator[Finding]:
    for each in helped:
        if each.interval is not None and each.interval.holds_zero:
            yield found("R102", f"a tie: the difference of {each.name} may be chance")
        if each.mean <= 0 and each.name.endswith("alone"):
            method = each.name.partition(" against ")[0]
            yield found("R106", f"the student by {method} scores no higher than the same student alone")


_Told = tuple[str, str]


def _of_training(run: ToldRun) -> Iterator[_Told]:
    """Where the chosen epoch lies."""
    phase: Mapping[str, Any] = next((each for each in run.run["phases"] if each["name"] == "distil"), {})
    chosen, epochs = phase.get("chosen_epoch"), phase.get("epochs")
    if not chosen or not epochs or not phase.get("chosen"):
        return
    if epochs > 1 and chosen >= epochs - epochs // _LATE:
        yield "R105", f"the best validation score came in epoch {chosen} of {epochs}: training still improved"
    kind, name = run.run["score"]["kind"], run.run["score"]["name"]
    best, last = (next(iter(phase[at].values()), {}).get(name) for at in ("chosen", "last"))
    if figures.is_share(kind) and best is not None and last is not None and best - last > _FELL:
        fell = figures.points(kind, best - last)
        yield "R107", f"validation fell by {fell} after epoch {chosen}, whose weights were kept"


def _of_scores(run: ToldRun) -> Iterator[_Told]:
    kind, student = run.run["score"]["kind"], run.network("distilled")["score"]
    best = max((about["score"] for _, about in run.teachers()), default=None)
    if best is not None and student > best:
        yield "R109", f"the student scores {figures.points(kind, student - best)} above its teacher"
    error = run.run.get("evidence", {}).get("calibration_error", {}).get("distilled")
    if error is not None and error > _OFF:
        off = figures.points("classes", error)
        yield "R110", f"the student's confidence is {off} away from how often it is right"


def _of_files(run: ToldRun) -> Iterator[_Told]:
    for text in run.run.get("failed", ()):
        yield "R108", text.splitlines()[0]
    whole, small = run.network("onnx"), run.network("onnx_int8")
    if whole.get("latency_seconds") and small.get("latency_seconds"):
        ratio = small["latency_seconds"] / whole["latency_seconds"]
        if ratio > 1:
            yield "R103", f"the int8 file takes {closing.times(ratio)} the time of the float file"
    lost = run.network("distilled")["score"] - small.get("score", float("inf"))
    if figures.is_share(run.run["score"]["kind"]) and lost > _INT8_LOSS:
        points = figures.points(run.run["score"]["kind"], lost)
        yield "R104", f"the int8 file scores {points} below the student"
