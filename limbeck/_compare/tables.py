"""The leaderboard as text, Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck._show import figures
from limbeck._show.intervals import FEWEST
from limbeck._show.tables import Table, harmless

_SCORES = ("", "method", ">{split}", ">spread", ">last", ">against kd [95 %]", ">against alone [95 %]")
_COSTS = (">parameters", ">file", ">latency", ">time", ">memory")
_KD = 5  # the column that is left out where there is no kd


def whole(board: Mapping[str, Any]) -> Table:
    """All columns.

    Args:
        board: what leaderboard.json holds.
    """
    return _table(board, lambda scores, costs, seeds: [*scores, *costs, seeds], True)


def scores(board: Mapping[str, Any]) -> Table:
    """Scores and differences alone, for a console."""
    found = _table(board, lambda scores, costs, seeds: [*scores, seeds], True)
    return Table(found.head, found.rows)


def costs(board: Mapping[str, Any]) -> Table:
    """What each line takes, and the notes."""
    return _table(board, lambda scores, costs, seeds: [scores[1], *costs], False)


def _table(board: Mapping[str, Any], pick: Any, drop: bool) -> Table:
    kind = board["score"]["kind"]
    head = pick([name.format(split=board["score"]["split"]) for name in _SCORES], list(_COSTS), ">seeds")
    rows = [pick(*_teacher(kind, teacher)) for teacher in board["teachers"]]
    rows += [pick(*_line(kind, row)) for row in board["rows"]]
    if drop and not any(row["method"] == "kd" for row in board["rows"]):
        for cells in (head, *rows):
            del cells[_KD]
    return Table(head, rows, board["notes"])


def _teacher(kind: str, teacher: Mapping[str, Any]) -> tuple[list[str], list[str], str]:
    score = "" if teacher["score"] is None else _score(kind, teacher["score"])
    return (
        ["", teacher["name"], score, "", "", "", ""],
        _cost({**teacher, "seconds": None, "memory_bytes": None}),
        "",
    )


def _line(kind: str, row: Mapping[str, Any]) -> tuple[list[str], list[str], str]:
    """Cells of a row: scores, costs, seeds."""
    test, last = row["test"], row["last"]
    missing = "failed" if row["failed"] else "waiting"
    first = [
        row["rank"],
        row["name"],
        missing if test is None else _score(kind, test["mean"]),
        "" if test is None or test["spread"] is None else _number(kind, test["spread"]),
        "" if last is None else _score(kind, last["mean"]),
        difference(kind, row["against_kd"]),
        difference(kind, row["against_alone"]),
    ]
    done = 0 if test is None else len(test["seeds"])
    asked = done + len(row["failed"]) + len(row["waiting"])
    return first, _cost(row), str(done) if done == asked else f"{done} of {asked}"


def _cost(row: Mapping[str, Any]) -> list[str]:
    shown = (
        ("parameters", "{:,}".format),
        ("bytes", figures.size),
        ("latency_seconds", figures.latency),
        ("seconds", figures.clock),
        ("memory_bytes", figures.size),
    )
    return ["" if row[key] is None else show(row[key]) for key, show in shown]


def _number(kind: str, value: float, sign: str = "") -> str:
    """A score or a difference: in per cent with two digits where the score is a share."""
    return f"{100 * value:{sign}.2f}" if figures.is_share(kind) else f"{value:{sign}.4f}"


def _score(kind: str, value: float) -> str:
    return f"{_number(kind, value)} %" if figures.is_share(kind) else _number(kind, value)


def difference(kind: str, found: Mapping[str, Any] | None) -> str:
    """`+0.24 [-0.33, +0.81]`, in points where the score is a share; the mean alone of fewer than 3 seeds."""
    if found is None:
        return ""
    mean = _number(kind, found["mean"], "+")
    if found["low"] is None:
        return mean
    return f"{mean} [{_number(kind, found['low'], '+')}, {_number(kind, found['high'], '+')}]"


def notes(board: Mapping[str, Any], jobs: int) -> list[str]:
    """What a reader must know to read the table; plain sentences.

    Args:
        board: without its notes.
        jobs: how many runs were beside each other.
    """
    score, seeds = board["score"], board["seeds"]
    unit = "points" if figures.is_share(score["kind"]) else "the unit of the score"
    said = [
        f"{score['split']}: {score['samples']:,} samples, {score['name']} of the epoch validation chose: "
        f"mean and sample deviation over {figures.count(len(seeds), 'seed')}; last: of the last epoch"
    ]
    if len(seeds) < FEWEST:
        said.append(f"fewer than {FEWEST} seeds: no intervals and no ranks; less may be chance")
    else:
        said.append(
            f"against: differences seed by seed in {unit}, and the 95 % interval of their mean "
            f"(Student's t, {len(seeds)} seeds); a line shares the rank of the best "
            "line above it where that interval holds zero"
        )
    if board["teachers"]:
        said.append("one teacher for all seeds: the spread does not hold the teacher's")
    said.append("time: training of one student, median; memory: the most of any run; " + board["latency"])
    if jobs > 1:
        said.append(f"latency and time were measured with {jobs} runs beside each other")
    for row in board["rows"]:
        said += [f"{row['name']}, seed {seed}: failed: {why}" for seed, why in row["failed"].items()]
    waiting = sum(len(row["waiting"]) for row in board["rows"])
    if waiting:
        said.append(f"not finished: {figures.count(waiting, 'run')} to go")
    return said


def as_csv(board: Mapping[str, Any]) -> str:
    """One row a line of the table, plain numbers with all their digits."""
    text = io.StringIO()
    names = ["rank", "name", "method", "test", "spread", "last"]
    against = [f"against_{base}{end}" for base in ("kd", "alone") for end in ("", "_low", "_high")]
    costs = ["parameters", "bytes", "latency_seconds", "seconds", "memory_bytes", "epochs", "seeds", "failed"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *against, *costs])
    for row in board["rows"]:
        test, last = row["test"] or {}, row["last"] or {}
        differences = [row[f"against_{base}"] or {} for base in ("kd", "alone")]
        parts = [found.get(key) for found in differences for key in ("mean", "low", "high")]
        own = [
            row["rank"],
            row["name"],
            row["method"],
            test.get("mean"),
            test.get("spread"),
            last.get("mean"),
        ]
        rest = [row[key] for key in costs[:-2]]
        writer.writerow([*own, *parts, *rest, len(test.get("seeds", {})), len(row["failed"])])
    return text.getvalue()


def as_html(board: Mapping[str, Any]) -> str:
    """One file without script or network; its colours follow the reader's."""
    title = html.escape(f"Leaderboard {board['name']}")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    facts = "".join(f"<li>{html.escape(text)}</li>" for text in board["facts"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n"
        "<style>:root { color-scheme: light dark; font-family: system-ui, sans-serif }"
        " body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem }"
        " .wide { overflow-x: auto } td, th { white-space: nowrap }</style>\n</head>\n<body>\n"
        f'<h1>{title}</h1>\n<ul>{facts}</ul>\n<div class="wide" tabindex="0" role="region" '
        f'aria-label="Leaderboard">{whole(board).html()}</div>\n</body>\n</html>\n'
    )


def as_markdown(board: Mapping[str, Any]) -> str:
    """Heading, facts, table, notes."""
    facts: Sequence[str] = board["facts"]
    lines = "\n".join(f"- {harmless(text)}" for text in facts)
    return f"# Leaderboard {harmless(board['name'])}\n\n{lines}\n\n{whole(board).markdown()}\n"
