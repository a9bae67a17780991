from __future__ import annotations

import csv
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from limbeck._compare import leaderboard, tables
from limbeck._compare.comparison import Comparison
from limbeck._compare.entries import Entry
from limbeck._compare.leaderboard import Line, ranks, rows
from limbeck._show.tables import Table
from tests.compare.tiny import recipe


def line(name: str, scores: dict[int, float], method: str = "kd", **more: Any) -> Line:
    """A line whose runs have these scores; the last epoch is a point worse."""

    def run(score: float) -> dict[str, Any]:
        about = {
            "score": score,
            "last": {"score": score - 0.01},
            "validation": {"accuracy": score},
            "parameters": 1000,
            "bytes": 4000,
            "latency_seconds": 0.001,
            "chosen_epoch": 1,
            "epochs": 2,
        }
        phase = {"name": "distil", "seconds": 3.0, "cost": {"peak_memory_bytes": 5_000_000}}
        return {"networks": {"distilled": about}, "phases": [phase], "score": {"name": "accuracy"}}

    runs = {seed: run(score) for seed, score in scores.items()}
    return Line(Entry(name, recipe(name, method), name), runs, **more)


def board(lines: list[Line], **more: Any) -> dict[str, Any]:
    found = {
        "name": "compare-tiny",
        "seeds": [0, 1, 2],
        "score": {"split": "test", "kind": "classes", "name": "accuracy", "samples": 100},
        "latency": "latency: median",
        "facts": ["data: <tiny>"],
        "teachers": [leaderboard.teacher_row("teacher", {"score": 0.9})],
        "rows": rows(lines),
        **more,
    }
    return {**found, "notes": tables.notes(found, 1)}


ALONE = line("alone", {0: 0.70, 1: 0.72, 2: 0.71}, "plain")
KD = line("kd", {0: 0.80, 1: 0.82, 2: 0.81})
LEVEL = line("level", {0: 0.82, 1: 0.80, 2: 0.82}, "sskd")


def test_differences_are_paired_by_seed_with_a_t_interval() -> None:
    shaky = line("shaky", {0: 0.71, 1: 0.74, 2: 0.74}, "sskd")
    found = {row["name"]: row for row in rows([ALONE, KD, shaky])}
    against = found["shaky"]["against_alone"]
    assert against["mean"] == pytest.approx(0.02)
    assert (against["low"], against["high"]) == pytest.approx((0.02 - 0.02484, 0.02 + 0.02484), abs=1e-4)
    assert found["kd"]["against_kd"] is None
    assert found["alone"]["against_alone"] is None
    assert found["alone"]["against_kd"]["mean"] == pytest.approx(-0.1)


def test_lines_within_the_interval_share_a_rank() -> None:
    assert ranks([LEVEL, KD, ALONE]) == {"level": "1=", "kd": "1=", "alone": "3"}
    assert ranks([KD, ALONE]) == {"kd": "1", "alone": "2"}
    assert [row["rank"] for row in rows([ALONE, KD, LEVEL])] == ["1=", "1=", "3"]


def test_fewer_than_three_seeds_have_neither_interval_nor_rank() -> None:
    few = rows([line("alone", {0: 0.7, 1: 0.8}, "plain"), line("kd", {0: 0.8, 1: 0.9})])
    assert [row["rank"] for row in few] == ["", ""]
    assert few[0]["against_alone"] == {"mean": pytest.approx(0.1), "low": None, "high": None, "seeds": 2}
    said = tables.notes({**board([ALONE, KD]), "seeds": [0, 1]}, 1)
    assert any("fewer than 3 seeds: no intervals and no ranks" in note for note in said)


def test_the_table_has_the_columns_in_their_order() -> None:
    made = tables.whole(board([ALONE, KD, LEVEL]))
    assert [name.removeprefix(">") for name in made.head] == [
        *("", "method", "test", "spread", "last", "against kd [95 %]", "against alone [95 %]"),
        *("parameters", "file", "latency", "time", "memory", "seeds"),
    ]
    assert [row[1] for row in made.rows] == ["teacher", "level", "kd", "alone"]
    assert made.rows[2][:5] == ["1=", "kd", "81.00 %", "1.00", "80.00 %"]
    assert made.rows[2][6:] == [
        *("+10.00 [+10.00, +10.00]", "1,000", "4.0 kB", "1.00 ms", "0:03", "5.00 MB", "3"),
    ]


def test_without_kd_its_column_is_left_out() -> None:
    made = tables.whole(board([ALONE, LEVEL]))
    assert not any("against kd" in name for name in made.head)
    assert all(len(row) == len(made.head) for row in made.rows)
    assert "against kd" not in tables.scores(board([ALONE, LEVEL])).text()


def test_failed_and_missing_runs_are_said() -> None:
    broken = line("broken", {}, "sskd", failed={0: "out of | memory <b>", 1: "x", 2: "x"})
    part = line("part", {0: 0.5, 1: 0.6}, "sskd", waiting=[2])
    found = board([ALONE, KD, broken, part])
    made = tables.whole(found)
    cells = {row[1]: row for row in made.rows}
    assert cells["broken"][2] == "failed"
    assert cells["broken"][-1] == "0 of 3"
    assert cells["part"][-1] == "2 of 3"
    assert "broken, seed 0: failed: out of | memory <b>" in found["notes"]
    assert "not finished: 1 run to go" in found["notes"]
    comparison = Comparison(folder=Path("x"), figures=found)
    assert list(comparison.failed) == ["broken, seed 0", "broken, seed 1", "broken, seed 2"]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handled: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handled += attrs


def test_the_page_is_one_file_without_script_and_everything_is_escaped() -> None:
    broken = line("broken", {}, "sskd", failed={0: "<script>alert(1)</script>"})
    found = board([ALONE, KD, broken], name="<img src=x>")
    page = tables.as_html(found)
    read = Tags()
    read.feed(page)
    assert not {"script", "img", "link", "b"} & set(read.tags)
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in read.handled)
    assert page.isascii()
    markdown = tables.as_markdown(found)
    assert "<script" not in markdown
    assert "<img" not in markdown


def test_markdown_cells_end_no_table() -> None:
    made = Table(("a", ">b"), [["x | y", "1"], ["<b>", "2\n3"]], ["note <i>"]).markdown()
    assert made == "| a | b |\n| --- | ---: |\n| x \\| y | 1 |\n| &lt;b> | 2 3 |\n\n- note &lt;i>"


def test_csv_has_all_digits() -> None:
    read = list(csv.DictReader(io.StringIO(tables.as_csv(board([ALONE, KD])))))
    assert [row["name"] for row in read] == ["kd", "alone"]
    assert float(read[0]["test"]) == pytest.approx(0.81)
    assert float(read[0]["against_alone_low"]) == pytest.approx(0.1)
    assert (read[0]["seeds"], read[0]["failed"], read[1]["against_alone"]) == ("3", "0", "")


def test_scores_that_are_no_shares_are_plain_numbers() -> None:
    found = board([ALONE, KD])
    found["score"] = {"split": "test", "kind": "values", "name": "r2", "samples": 10}
    assert tables.whole(found).rows[1][2:4] == ["0.8100", "0.0100"]
    assert any("in the unit of the score" in note for note in tables.notes(found, 2))
    assert any("2 runs beside each other" in note for note in tables.notes(found, 2))


def test_a_comparison_shows_itself_small() -> None:
    many = [line(f"kd{n}", {0: 0.80, 1: 0.82, 2: 0.81}) for n in range(30)]
    shown = Comparison(Path("runs/compare-x"), board([ALONE, *many]))
    assert len(shown._repr_html_()) <= 20_000
    assert "22 more rows" in shown._repr_html_()
    assert repr(shown) == shown.text()
    assert shown.to_json()["rows"]
    assert "runs/compare-x/cells/kd0-seed0" in shown.next_text()
    assert max(len(text) for text in shown.text().splitlines()) <= 110
