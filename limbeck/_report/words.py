"""What each picture and table shows, as the sentence above it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from limbeck._report.facts import (
    Calibration,
    Classes,
    Comparison,
    Curve,
    Details,
    Dispute,
    Model,
    Page,
    Split,
)
from limbeck._report.pictures import shortened
from limbeck._show import figures

_FIGURE = re.compile(r"(?<=\d) (?=(?:x|%|points|ms|s|kB|MB|GB)(?!\w))")
_MINUS = re.compile(r"(?<!\S)-(?=\d)")
_TEACHER_PART = 0.005  # of a step, below which the teacher's share is not worth a sentence


def tidy(text: str) -> str:
    """A sentence of ours whose figures are not torn from their units at the end of a line."""
    return _MINUS.sub("\u2212", _FIGURE.sub("\u00a0", text).replace("\u00a0x", "\u00d7"))


def name_of(text: str) -> str:
    """A name of the user's in a sentence: not too long."""
    return shortened(text, 48)


def signed(kind: str, difference: float) -> str:
    """A difference of scores with its sign, as `+1.9`, in points where scores are shares."""
    shown = f"{difference * 100:+.1f}" if figures.is_share(kind) else f"{difference:+.3f}"
    return shown.replace("-", "\u2212")


def trade_title(models: Sequence[Model], kind: str) -> str:
    """Which model answers fastest, and what it scores."""
    fastest = min((model for model in models if model.seconds), key=lambda model: model.seconds or 0.0)
    time = figures.latency(fastest.seconds or 0.0)
    score = figures.score(kind, fastest.score)
    name = f"the student {fastest.name}" if fastest.file else f"the {fastest.name}"
    return f"Fastest is {name_of(name)}: {score} at {time} an answer"


def helped_title(comparisons: Sequence[Comparison], kind: str) -> str:
    """What the first comparison came to."""
    first = comparisons[0]
    gained = figures.points(kind, first.mean)
    word = "gains" if first.mean >= 0 else "loses"
    method, _, rest = first.name.partition(" against ")
    tail = ""
    if first.interval is not None and first.interval.holds_zero:
        tail = ", which may be chance"
    elif first.interval is not None and len(first.differences) > 1:
        tail = ", more than chance gives"
    return f"{name_of(method)} {word} {gained} against {rest}{tail}"


def validation_title(curves: Sequence[Curve], kind: str) -> str:
    """Which training reached most on validation data."""
    best = max(curves, key=lambda curve: max(value for _, value in curve.points))
    epoch, value = max(best.points, key=lambda point: point[1])
    name, score = name_of(best.whole_name), figures.score(kind, value)
    return f"Best on validation data: {name}, {score} in epoch {epoch:.0f}"


def terms_title(curves: Sequence[Curve]) -> str:
    """How far the terms fell."""
    told = [
        f"{curve.name} {_fell(curve.points[0][1], curve.points[-1][1])}"
        for curve in curves
        if len(curve.points) > 1
    ]
    return shortened("; ".join(told), 110) or "One epoch"


def _fell(first: float, last: float) -> str:
    word = "falls" if last < first else "rises" if last > first else "stays"
    return f"{word} from {figures.short(first)} to {figures.short(last)}"


def classes_title(classes: Classes) -> str:
    """The class that gains most, and the one that loses most."""
    most = max(classes.rows, key=lambda row: row.change)
    least = min(classes.rows, key=lambda row: row.change)
    parts = []
    if most.change > 0:
        parts.append(f"{name_of(most.name)} gains most, {signed('classes', most.change)} points")
    if least.change < 0:
        parts.append(f"{name_of(least.name)} loses most, {signed('classes', least.change)} points")
    return "; ".join(parts) or "No class changes"


def moved_title(classes: Classes) -> str:
    """The confusion that changed most."""
    first = classes.moved[0]
    change = first.after - first.before
    word = "more" if change > 0 else "fewer"
    true, said = name_of(classes.names[first.true]), name_of(classes.names[first.said])
    return f"{true} taken for {said}: {abs(change):,} {word}"


def agreement_title(details: Details) -> str:
    """How often teacher and student give the same answer."""
    found = details.agreement
    assert found is not None
    same = figures.score("classes", found.same / found.samples)
    return f"Teacher and student give the same answer to {same} of the samples"


def disputes_title(disputes: Sequence[Dispute]) -> str:
    """How many of them the student got right, and how many the teacher."""
    right = [sum(each.answers[place].right for each in disputes) for place in (0, 1)]
    samples = figures.count(len(disputes), "sample")
    return f"Of the {samples} most in dispute the student is right on {right[1]}, the teacher on {right[0]}"


def calibration_title(networks: Sequence[Calibration]) -> str:
    """Which network's confidence is closest to the truth, and what that of the student is."""
    best = min(networks, key=lambda each: each.error)
    last = networks[-1]
    told = f"{best.name} is best calibrated (ECE {figures.score('classes', best.error)})"
    if last is not best:
        told += f"; {last.name}: {figures.score('classes', last.error)}"
    return told[:1].upper() + told[1:]


def cost_title(splits: Sequence[Split]) -> str:
    """How much longer a step is than that of plain training, and the teacher's share of it."""
    last = splits[-1]
    whole = sum(last.seconds.values())
    teacher = last.seconds.get("teacher", 0.0)
    told = f"A step of the distillation takes {figures.part(whole, whole)} {figures.unit(whole)}"
    if len(splits) > 1:
        told += f", {whole / sum(splits[0].seconds.values()):.2f} times that of the student alone"
    if teacher >= _TEACHER_PART * whole:
        told += f"; the teacher's share is {teacher / whole:.0%}".replace("%", " %")
    return told


def spread(page: Page, model: Model) -> str:
    """Standard deviation over the runs, in points where scores are shares; empty for one run."""
    if model.spread is None:
        return ""
    return f"{model.spread * 100:.1f}" if figures.is_share(page.kind) else f"{model.spread:.3f}"
