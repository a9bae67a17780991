"""From finished runs to the rows of a leaderboard: means, paired differences with intervals, ranks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limbeck._compare.entries import Entry
from limbeck._show.intervals import FEWEST, mean_interval


@dataclass(frozen=True)
class Line:
    """The runs of one line of the table.

    Args:
        entry: the recipe.
        runs: what run.json says, by seed, of those that finished.
        failed: why others did not, by seed.
        waiting: seeds that are still to be run.
    """

    entry: Entry
    runs: Mapping[int, Mapping[str, Any]]
    failed: Mapping[int, str] = field(default_factory=dict)
    waiting: Sequence[int] = ()

    def student(self, key: str) -> dict[int, Any]:
        """A figure of the distilled student by seed, of the runs that have it."""
        found = {seed: run["networks"]["distilled"].get(key) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def scores(self) -> dict[int, float]:
        """Of the chosen epoch on the test data, by seed."""
        return self.student("score")

    @property
    def mean(self) -> float:
        """Of the scores; minus infinity where there are none."""
        return statistics.fmean(self.scores.values()) if self.scores else float("-inf")


def paired(line: Line, other: Line) -> list[float]:
    """Differences of the scores, seed by seed, of the seeds that both have."""
    ours, theirs = line.scores, other.scores
    return [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]


def ranks(lines: Sequence[Line]) -> dict[str, str]:
    """`1`, `2=`, ... by name of the line; empty where too few seeds tell lines apart.

    Lines share a rank with the best of their group where the 95 % interval of their paired difference holds
    zero.

    Args:
        lines: those with scores, best first.
    """
    if any(len(line.scores) < FEWEST for line in lines):
        return {}
    groups: list[list[Line]] = []
    for line in lines:
        difference = mean_interval(paired(groups[-1][0], line)) if groups else None
        if difference is not None and difference.holds_zero:
            groups[-1].append(line)
        else:
            groups.append([line])
    found, before = {}, 0
    for group in groups:
        for line in group:
            found[line.entry.name] = f"{before + 1}{'=' * (len(group) > 1)}"
        before += len(group)
    return found


def row(line: Line, kd: Line | None, alone: Line | None, rank: str) -> dict[str, Any]:
    """What leaderboard.json says of a line."""
    phases = [_distil(run) for run in line.runs.values()]
    memory = [phase["cost"]["peak_memory_bytes"] for phase in phases if phase.get("cost")]
    chosen = {seed: run["networks"]["distilled"].get("validation", {}) for seed, run in line.runs.items()}
    names = {seed: run["score"]["name"] for seed, run in line.runs.items()}
    return {
        "name": line.entry.name,
        "method": line.entry.method,
        "rank": rank,
        "test": summary(line.scores),
        "last": summary({seed: last["score"] for seed, last in line.student("last").items()}),
        "validation": summary({seed: v[names[seed]] for seed, v in chosen.items() if names[seed] in v}),
        "against_kd": _against(line, kd),
        "against_alone": _against(line, alone),
        "parameters": _one(line.student("parameters")),
        "bytes": _one(line.student("bytes")),
        "latency_seconds": _median(line.student("latency_seconds")),
        "seconds": _median({number: phase["seconds"] for number, phase in enumerate(phases)}),
        "memory_bytes": max((found for found in memory if found is not None), default=None),
        "chosen_epochs": line.student("chosen_epoch"),
        "epochs": _one(line.student("epochs")),
        "settings": _settings(line.entry),
        "failed": dict(line.failed),
        "waiting": list(line.waiting),
    }


def _distil(run: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(phase for phase in run["phases"] if phase["name"] == "distil")
    return found


def _settings(entry: Entry) -> dict[str, Any]:
    """What the recipe sets of the method."""
    return entry.recipe.method.model_dump(exclude={"name"}, exclude_none=True, exclude_unset=True)


def summary(values: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean, spread (sample deviation; None of one) and every value by seed."""
    if not values:
        return None
    found = list(values.values())
    spread = statistics.stdev(found) if len(found) > 1 else None
    return {"mean": statistics.fmean(found), "spread": spread, "seeds": dict(values)}


def _against(line: Line, base: Line | None) -> dict[str, Any] | None:
    """The mean of the paired differences to a line, with its interval."""
    if base is None or base is line:
        return None
    found = paired(line, base)
    if not found:
        return None
    interval = mean_interval(found)
    return {
        "mean": statistics.fmean(found),
        "low": None if interval is None else interval.mean - interval.half,
        "high": None if interval is None else interval.mean + interval.half,
        "seeds": len(found),
    }


def _one(values: Mapping[int, Any]) -> Any:
    """A figure that is the same in all runs; the largest where it is not."""
    return max(values.values(), default=None)


def _median(values: Mapping[int, float]) -> float | None:
    return statistics.median(values.values()) if values else None


def rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The rows of the table, best first; lines without a score at the end."""
    ordered = sorted(lines, key=lambda line: -line.mean)
    scored = [line for line in ordered if line.scores]
    placed = ranks(scored)
    kd = next((line for line in lines if line.entry.is_kd), None)
    alone = next((line for line in lines if line.entry.is_alone), None)
    return [row(line, kd, alone, placed.get(line.entry.name, "")) for line in ordered]


def teacher_row(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """What leaderboard.json says of a teacher."""
    keys = ("score", "parameters", "bytes", "latency_seconds")
    return {"name": name, **{key: about.get(key) for key in keys}}
