"""The verdict on some runs: a sentence, four numbers, and what forbids to make more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck._findings import CATALOGUE, Finding
from limbeck._report.facts import Comparison, Found, Number
from limbeck._run import closing
from limbeck._run.noticed import OF_THE_VERDICT, noticed
from limbeck._run.settings import Settings, ToldRun
from limbeck._show import figures


@dataclass(frozen=True)
class Judged:
    """What stands at the top of a page.

    Attributes:
        helped: the comparisons that it rests on.
        stored: all findings as plain values; `findings` are those that `warnings` do not tell.
    """

    verdict: str
    numbers: Sequence[Number]
    seeds: str
    warnings: Sequence[str]
    helped: Sequence[Comparison]
    findings: Sequence[Found]
    stored: list[dict[str, Any]]


def judge(settings: Settings) -> Judged:
    """The verdict on the setting that was best on validation data; nothing is chosen by the test split."""
    taught = [group for group in settings.groups if settings.series(group) != "alone"]
    best = max(taught or settings.groups, key=_validated)
    run = best[0]
    helped = settings.helped()
    findings = noticed(settings, helped)
    against = next((each for each in helped if each.name.startswith(f"{settings.label(best)} against")), None)
    return Judged(
        _sentence(settings, best, against),
        _numbers(run, best, against),
        _seeds(settings),
        _warnings(settings, findings),
        helped,
        [_shown(each) for each in findings if each.code not in OF_THE_VERDICT],
        [each.stored() for each in findings],
    )


def _validated(group: Sequence[ToldRun]) -> float:
    """The mean score on validation data; 0 without such data, so that the first setting counts."""
    name = group[0].run["score"]["name"]
    scores = [run.network("distilled").get("validation", {}).get(name, 0.0) for run in group]
    return float(sum(scores)) / len(scores)


def _mean(group: Sequence[ToldRun]) -> float:
    return sum(float(run.network("distilled")["score"]) for run in group) / len(group)


def _teacher(run: ToldRun) -> Mapping[str, Any]:
    """The best teacher; nothing where there is none."""
    return max((about for _, about in run.teachers()), key=lambda about: about["score"], default={})


def _sentence(settings: Settings, best: Sequence[ToldRun], against: Comparison | None) -> str:
    run, kind = best[0], best[0].run["score"]["kind"]
    several = len(settings.groups) > 1
    name = f"The student by {settings.label(best)}" if several else "The student"
    lead = closing.lead(_teacher(run), run.network("distilled"))
    told = [f"is {lead}"] if lead else []
    if figures.is_share(kind) and _teacher(run).get("score"):
        told.append(f"keeps {_kept(run, best)} of its {_score_name(run)}")
    if against is not None:
        told.append(f"scores {closing.beside_alone(kind, against.mean)}")
    told = told or [f"reaches {figures.score(kind, _mean(best))} {_score_name(run)}"]
    joined = " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else told[0]
    return f"{name} {joined}."


def _kept(run: ToldRun, best: Sequence[ToldRun]) -> str:
    return f"{100 * _mean(best) / _teacher(run)['score']:.1f} %"


def _score_name(run: ToldRun) -> str:
    return str(run.run["score"]["name"]).replace("_", " ")


def _numbers(run: ToldRun, best: Sequence[ToldRun], against: Comparison | None) -> list[Number]:
    """Score kept, times smaller, times faster, points over the same student alone; those that are known."""
    kind, student, teacher = run.run["score"]["kind"], run.network("distilled"), _teacher(run)
    score = figures.score(kind, _mean(best))
    found = []
    if figures.is_share(kind) and teacher.get("score"):
        beside = figures.score(kind, teacher["score"])
        found.append(Number(_kept(run, best), f"of the teacher's {_score_name(run)}: {score} of {beside}"))
    else:
        found.append(Number(score, f"{_score_name(run)} of the student"))
    for key, shown, unit, label in (
        ("parameters", "{:,}".format, " parameters", "parameters"),
        ("latency_seconds", figures.latency, "", "an answer"),
    ):
        ratio = closing.ratio_of(teacher, student, key)
        if ratio is not None:
            told = f"{shown(student[key])} against {shown(teacher[key])}{unit}"
            found.append(Number(closing.times(ratio), f"{closing.ADVANTAGES[key]} than the teacher: {told}"))
        elif student.get(key):
            found.append(Number(shown(student[key]), label))
    if against is not None:
        sign = "+" if against.mean >= 0 else "-"
        value = figures.points(kind, against.mean).removesuffix(" points")
        word = "points" if figures.is_share(kind) else "in score"
        found.append(Number(f"{sign}{value}", f"{word} against the same student trained alone"))
    return found


def _seeds(settings: Settings) -> str:
    """How many runs stand behind the figures."""
    runs = figures.count(len(settings.runs), "run")
    seeds = sorted({run.seed for run in settings.runs})
    of = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    split = settings.runs[0].run["score"]["split"]
    chosen = "Checkpoints were chosen on validation data." if split == "test" else ""
    return f"{runs}, {of}. {chosen}".strip()


def _warnings(settings: Settings, findings: Sequence[Finding]) -> list[str]:
    """What weakens the verdict: one seed, a tie, scores of data that were used before."""
    told = [
        f"{each.message[:1].upper()}{each.message[1:]} ({each.code})."
        for each in findings
        if each.code in OF_THE_VERDICT
    ]
    split = settings.runs[0].run["score"]["split"]
    if split != "test":
        told.append(f"There was no test split: the scores are of {split} data, which were used before.")
    return told


def _shown(finding: Finding) -> Found:
    """A finding as the page shows it."""
    known = CATALOGUE[finding.code]
    return Found(
        finding.code,
        finding.severity,
        known.title,
        finding.message,
        finding.where,
        finding.fix,
        known.matters,
    )
