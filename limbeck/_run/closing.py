"""The end of a run in words: the closing table, what it means, what can be done next."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from html import escape
from typing import Any

from limbeck._show import figures
from limbeck._show.tables import Table

#: Files made from the student, by the key under which run.json keeps them.
FILES = {"onnx": "as ONNX", "onnx_int8": "as ONNX int8", "torch": "as PyTorch program"}

#: Rows of the table, by the key under which run.json keeps a network.
ROWS = (
    ("teacher", "teacher"),
    ("alone", "student alone"),
    ("distilled", "student distilled"),
    *((key, f"  {title}") for key, title in FILES.items()),
)

#: What a student may have less of than its teacher, and the word for it.
ADVANTAGES = {"parameters": "smaller", "latency_seconds": "faster"}

_NOTABLE_PART = 0.005  # of a step, from which a part of it is shown
_NOTABLE = 1.05  # times smaller or faster from which it is worth a word


def table(run: Mapping[str, Any]) -> Table:
    """The closing table of a finished run.

    Args:
        run: what run.json holds.
    """
    head = ("", f">{run['score']['split']}", ">parameters", ">file", ">latency", "")
    rows = []
    networks: Mapping[str, Any] = run["networks"]
    for key, title in ROWS:
        for name in sorted(name for name in networks if name == key or name.startswith(f"{key} ")):
            rows.append(_row(title + name.removeprefix(key), networks[name], run["score"]["kind"]))
    measured = run.get("latency")
    notes = [f"latency: {measured['how']}"] if measured else []
    return Table(head, rows, notes)


def _row(title: str, network: Mapping[str, Any], kind: str) -> list[str]:
    score, parameters = network.get("score"), network.get("parameters")
    file, latency = network.get("bytes"), network.get("latency_seconds")
    return [
        title,
        "" if score is None else figures.score(kind, score),
        "" if parameters is None else f"{parameters:,}",
        "" if file is None else figures.size(file),
        "" if latency is None else figures.latency(latency),
        network.get("note", ""),
    ]


def verdict(run: Mapping[str, Any]) -> str:
    """What the table says, in a sentence or two."""
    networks, kind = run["networks"], run["score"]["kind"]
    teacher, alone, student = (networks.get(key, {}) for key in ("teacher", "alone", "distilled"))
    text = lead(teacher, student)
    if alone.get("score") is None or student.get("score") is None:
        return f"{text}." if text else ""
    difference = student["score"] - alone["score"]
    text += f"{'; ' if text else ''}{beside_alone(kind, difference)}."
    noise = chance(kind, alone["score"], student["score"], run["score"]["samples"])
    if noise is not None:
        text += f" One seed: less than {figures.points(kind, noise)} may be chance."
    return text


def lead(teacher: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    """`22 x smaller and 4.0 x faster than its teacher`; empty where neither is worth a word.

    Args:
        teacher: what run.json says of it; may be empty.
        student: likewise.
    """
    ratios = [(ratio_of(teacher, student, key), word) for key, word in ADVANTAGES.items()]
    parts = [f"{times(ratio)} {word}" for ratio, word in ratios if ratio is not None and ratio > _NOTABLE]
    return f"{' and '.join(parts)} than its teacher" if parts else ""


def ratio_of(teacher: Mapping[str, Any], student: Mapping[str, Any], key: str) -> float | None:
    """How many times more of something the teacher has; None where it is not known of both."""
    above, below = teacher.get(key), student.get(key)
    return above / below if above and below else None


def beside_alone(kind: str, difference: float) -> str:
    """`1.9 points above the same student alone`."""
    side = "above" if difference >= 0 else "below"
    return f"{figures.points(kind, difference)} {side} the same student alone"


def times(ratio: float) -> str:
    """A ratio in words."""
    return f"{ratio:.0f} x" if ratio >= 10 else f"{ratio:.1f} x"


def chance(kind: str, one: float, two: float, samples: int) -> float | None:
    """The difference of two shares that the finite test set alone makes in 1 of 20 comparisons.

    Args:
        kind: of the task.
        one: a share of right answers.
        two: another.
        samples: of the test set. The two are taken as independent, which errs on the careful side.
    """
    if kind != "classes":
        return None
    return 1.96 * math.sqrt((one * (1 - one) + two * (1 - two)) / samples)


def cost_text(run: Mapping[str, Any]) -> str:
    """What a step of the distillation took by its parts, and memory: at most two lines of 80 columns.

    Args:
        run: what run.json holds. A training too short to be timed has no such text.
    """
    costs = {phase["name"]: phase["cost"] for phase in run["phases"] if phase.get("cost")}
    cost = costs.get("distil")
    if cost is None or not cost["steps"]:
        return ""
    step = sum(cost["seconds"].values())
    shown = [
        f"{name} {figures.part(seconds, step)}"
        for name, seconds in cost["seconds"].items()
        if seconds >= _NOTABLE_PART * step
    ]
    alone = sum(costs.get("alone", {}).get("seconds", {}).values())
    beside = f" (alone {figures.part(alone, step)})" if alone else ""
    memory, extra = cost["peak_memory_bytes"], cost["extra_parameters"]
    facts = [f"distil step {figures.part(step, step)} {figures.unit(step)}{beside}: {', '.join(shown)}"]
    facts += [] if memory is None else [f"{figures.size(memory)} memory"]
    facts += [] if extra is None else [f"{extra:,} extra parameters"]
    return textwrap.fill("; ".join(facts), 80, break_on_hyphens=False)


def after(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Commands that go on from a finished run, with what they do."""
    folder, source = run["folder"], run["source"]
    own = "YOURS.png" if run["data"]["pictures"] else "INPUT"
    return [
        (f"limbeck compare {source} --seeds 5", "how much is chance"),
        (f"limbeck measure {folder}", "time by batch and threads, memory"),
        (f"limbeck predict {folder} {own}", "teacher and student together"),
        (f"hf upload YOU/NAME {folder}/student", "nothing was sent so far"),
    ]


def closing_text(run: Mapping[str, Any]) -> str:
    """Table, cost and verdict of a finished run."""
    cost = cost_text(run)
    return "\n".join([table(run).text(), *([cost] if cost else []), *textwrap.wrap(verdict(run), 80)])


def next_text(run: Mapping[str, Any]) -> str:
    """Files of a finished run, commands that go on from it, and the time it took."""
    shown = dict.fromkeys(re.sub(r"^(exports/\w+/).*", r"\1", name) for name in run["files"])
    lines = [f"{run['folder']}   {'  '.join(shown)}"]
    for number, (command, about) in enumerate(after(run)):
        lines.append(f"{'next' if number == 0 else '':<6}{command:<48}  {about}")
    took, planned = figures.clock(run["seconds"]), figures.clock(run["planned_seconds"])
    return "\n".join([*lines, f"done in {took} (the plan said {planned})"])


def html(run: Mapping[str, Any]) -> str:
    """Table, cost and verdict for a notebook."""
    lines = [text for text in (cost_text(run), verdict(run), run["folder"]) if text]
    return table(run).html() + "".join(f"<div>{escape(text)}</div>" for text in lines)
