"""The figures of a check in words, and as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from limbeck._check.terms import Terms
from limbeck._run import chance
from limbeck._run.caching import plan_line
from limbeck._run.plan import Plan
from limbeck._run.session import Prepared, Session
from limbeck._show import figures
from limbeck.data.dataset import Dataset
from limbeck.method import Method

_PAIRS = 4  # that are shown
_TERMS = 3  # up to so many, gradients stand behind all of them


@dataclass
class Words:
    """Lines by name, in the order of the screen, and the same as plain values."""

    lines: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def pairs(self, method: Method, *, proposed: bool) -> None:
        """The layers that a method reads; side by side where there are as many of both."""
        if not method.card.taps:
            return
        sides = {
            side: [f"{path} {_shape(method.shapes[side][path])}" for path in method.tapped[side]]
            for side in ("teacher", "student")
        }
        teacher, student = sides["teacher"], sides["student"]
        if len(teacher) == len(student) <= _PAIRS:
            said = ", ".join(f"{a} > {b}" for a, b in zip(teacher, student, strict=True))
        else:
            said = f"{_listed(teacher)} > {_listed(student)}"
        first = {"pairs": f"{said}{' proposed' if proposed else ''}"}
        self.lines = {**first, **self.lines}
        self.figures["layers"] = {
            **{side: list(method.tapped[side]) for side in sides},
            "shapes": {side: {p: list(s) for p, s in method.shapes[side].items()} for side in sides},
            "proposed": proposed,
        }

    def scores(
        self,
        session: Session,
        name: str,
        data: Dataset,
        found: Mapping[str, float],
        trained: bool,
        teaches: bool,
    ) -> None:
        """Scores on a sample; of a teacher that is yet to be trained there is none."""
        task = session.splits.task
        said = []
        if "teacher" in found:
            said.append(f"teacher {figures.score(task.kind, found['teacher'])}")
        elif teaches:
            said.append("teacher not known before it is trained")
        if "student" in found:
            about = "student as given" if trained else "untrained student"
            said.append(f"{about} {figures.score(task.kind, found['student'])}")
        level = _chance(task.kind, data)
        if level is not None:
            said.append(f"chance {figures.score(task.kind, level)}")
        self.lines["scores"] = f"{len(data):,} {name}: {', '.join(said)}"
        self.figures["scores"] = {"split": name, "samples": len(data), **found, "chance": level}

    def terms(self, found: Terms) -> None:
        """Loss terms, unweighted, and the norms of their weighted gradients."""
        values = [f"{name} {figures.short(value)}" for name, value in found.values.items()]
        pulls = [figures.short(value) for value in found.pulls.values()]
        if len(values) <= _TERMS:
            self.lines["losses"] = f"{', '.join(values)}; gradients at the student {', '.join(pulls)}"
        else:  # side by side, or no one knows which is whose
            both = ", ".join(f"{value} ({pull})" for value, pull in zip(values, pulls, strict=True))
            self.lines["losses"] = f"{both}; in brackets the gradients at the student"
        self.figures["losses"] = {
            "terms": {name: _plain(value) for name, value in found.values.items()},
            "gradients": {name: _plain(value) for name, value in found.pulls.items()},
        }

    def costs(self, prepared: Prepared, plan: Plan, found: Terms) -> None:
        """Time, memory, the teacher's share, what is stored of it."""
        cost = prepared.costs["distil"]
        validation = prepared.session.splits.validation
        scored = 0.0 if validation is None else cost.epochs * len(validation) * cost.scoring
        step = max(cost.seconds - scored, 0.0) / max(cost.steps, 1)
        memory = "" if plan.memory is None else f", {figures.size(plan.memory)} memory"
        said = f"{_seconds(step)} a step, {figures.clock(plan.seconds)} in all{memory}"
        said += f", {figures.size(plan.disk)} disk"
        live = found.teacher / (found.step or found.teacher or 1.0)
        caching = prepared.caching
        cached = caching.seconds / ((caching.seconds + cost.seconds) or 1.0)
        if found.teacher:
            said += f"; teacher {_percent(live)}"
            said += f" (cached {_percent(cached)})" if caching.on else ""
        self.lines["cost"] = said
        if caching.on:
            self.lines["cache"] = plan_line(caching)
        elif caching.why:
            self.lines["cache"] = f"teacher live: {caching.why}"
        self.figures["cost"] = {
            "step_seconds": round(step, 5),
            "seconds": round(plan.seconds, 1),
            "memory_bytes": plan.memory,
            "disk_bytes": plan.disk,
            "teacher_share": round(live, 3),
            "teacher_share_cached": round(cached, 3) if caching.on else None,
        }
        self.figures["cache"] = {
            "on": caching.on,
            "why": caching.why,
            "answers": caching.answers,
            "bytes": caching.bytes,
            "kept_mass": caching.kept_mass,
        }


def _chance(kind: str, data: Dataset) -> float | None:
    if kind != "classes":
        return None
    targets = data.targets()
    known = targets[targets >= 0]
    if not len(known):
        return None
    return chance.Look(known, torch.zeros_like(known)).chance


def _shape(shape: torch.Size) -> str:
    return "x".join(str(size) for size in shape[1:]) or "1"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _PAIRS} more" if len(names) > _PAIRS else ""
    return " ".join(names[:_PAIRS]) + more


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.1f} ms"


def _percent(share: float) -> str:
    return f"{min(share, 1.0):.0%}".replace("%", " %")


def _plain(value: float) -> float | str:
    """JSON has no number for what is not finite."""
    return value if abs(value) < float("inf") else str(value)
