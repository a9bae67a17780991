"""The test split is seen at the end of a run, once by each network that is scored; it chooses nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import limbeck
from limbeck._run.screen import silent
from limbeck.recipe import Recipe
from tests.compare.watched import TEST

MODEL = "tests.compare.watched:network"
RECIPE = Recipe(
    name="watched",
    data={"source": "tests.compare.watched:data"},
    teacher={"model": MODEL},
    student={"model": MODEL},
    train={"epochs": 3, "batch_size": 16},
    export={"to": []},
)


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "seen"


def by_process(seen: Path) -> dict[str, list[list[str]]]:
    """What each process noted, in its order."""
    found: dict[str, list[list[str]]] = {}
    for line in seen.read_text("utf-8").splitlines():
        process, *words = line.split()
        found.setdefault(process, []).append(words)
    return found


def answers(notes: list[list[str]]) -> int:
    """How many test pictures passed through networks; those whose time is taken pass one by one."""
    return sum(int(marked) for what, size, marked in notes if what == "answered" and int(size) > 1)


def check_order(notes: list[list[str]], scored: int) -> None:
    """Nothing of the test part before the end of the last training, then all of it once a network."""
    last = max(number for number, words in enumerate(notes) if words[0] == "trained")
    before, after = notes[: last + 1], notes[last + 1 :]
    assert not any(words[0] != "read" and int(words[2]) for words in before)
    read = Counter(words[2] for words in before if words[:2] == ["read", "test"])
    assert read.pop("0") <= 2  # the first one also when the data are opened
    assert set(read.values()) == {1}  # for the fingerprint of the data; no network sees them
    assert answers(after) == scored * TEST
    read = Counter(words[2] for words in after if words[:2] == ["read", "test"])
    assert len(read) == TEST
    assert min(read.values()) == scored


def test_a_run(seen: Path, tmp_path: Path) -> None:
    run = limbeck.distill(RECIPE, output=tmp_path / "run", screen=silent())
    (notes,) = by_process(seen).values()
    check_order(notes, scored=6)  # teacher, student alone, distilled student: chosen and last epoch each
    for phase in run.figures["phases"]:
        lines = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8")
        assert "test" not in lines
        assert phase["chosen"]["student"] == run.figures["networks"][_key(phase["name"])]["validation"]


def _key(phase: str) -> str:
    return {"teacher 0": "teacher", "alone": "alone", "distil": "distilled"}[phase]


def test_a_comparison(seen: Path, tmp_path: Path) -> None:
    limbeck.compare(RECIPE, seeds=1, output=tmp_path / "comparison", screen=silent())
    rehearsal, *cells = by_process(seen).values()
    assert answers(rehearsal) == 0
    assert len(cells) == 3
    for notes, scored in zip(cells, (2, 2, 3), strict=True):  # teacher; alone; teacher once and student
        check_order(notes, scored)
