"""What a run shows while it works: the plan, live and plain lines, the folder it goes to, the verdict."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from limbeck._run import closing
from limbeck._run import folder as folders
from limbeck._run.plan import MOST_LINES, Part, Plan
from limbeck._run.screen import Screen
from limbeck.engine.listener import EpochEnd, StageStart, StepEnd
from limbeck.errors import RequestError


def test_a_long_plan_is_cut_to_twelve_lines_and_warns() -> None:
    parts = [Part(f"part{n}", "words " * 30, 1000.0) for n in range(9)]
    plan = Plan(
        "head",
        "runs/x",
        "",
        parts,
        9 * 10**9,
        10**9,
        "same",
        "chosen",
        ["a", "b"],
        {"memory": 10**10, "disk": 10**8},
    )
    assert len(plan.lines()) == MOST_LINES
    assert max(map(len, plan.lines())) <= 80
    assert plan.warnings() == [
        "this will take 2:30:00",
        "9.0 GB of 10.0 GB memory will be used",
        "1.0 GB of 100 MB free disk will be used",
    ]


def events(screen: Screen, epochs: int = 2) -> None:
    line = screen.phase("distil", epochs, "classes", "accuracy", 5.0)
    line.on_stage(StageStart(0, "train", epochs, 4, 10, {}))
    for epoch in range(1, epochs + 1):
        for step in range(4):
            line.spoke = 0.0
            line.on_step(StepEnd(0, epoch, step, 4, 8, 0.1, {"hard": torch.tensor(0.5)}, {}))
        scores = {"student": {"accuracy": 0.8}}
        line.on_epoch(EpochEnd(0, "train", epoch, epochs, 1.0, 32, {"hard": 0.5}, {}, scores, True))
    line.finish(12.0, 0.8, epochs)


def test_lines_in_a_pipe_have_no_control_characters() -> None:
    stream = io.StringIO()
    events(Screen(stream))
    text = stream.getvalue()
    assert text.isascii()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "distil 1/2 validation 80.0 % hard 0.500 left 0:05" in text
    assert text.splitlines()[-1].startswith("distil   2/2  validation 80.0 %  hard 0.500")
    assert text.splitlines()[-1].endswith("0:12")
    assert max(map(len, text.splitlines())) <= 80


def test_a_terminal_has_one_live_line_that_becomes_the_final_one() -> None:
    stream = io.StringIO()
    events(Screen(stream, live=True, width=80))
    text = stream.getvalue()
    assert "[####" in text
    assert "hard 0.500" in text
    assert ", all " in text
    assert "\x1b[2Kdistil   2/2  validation 80.0 %" in text.splitlines()[-1]


def test_a_quiet_screen_says_nothing() -> None:
    stream = io.StringIO()
    events(Screen(stream, quiet=True))
    assert stream.getvalue() == ""


def test_a_resumed_phase_counts_on() -> None:
    stream = io.StringIO()
    line = Screen(stream).phase("alone", 4, "classes", "accuracy", 0.0, done=2)
    line.on_step(StepEnd(0, 3, 1, 4, 8, 0.1, {}, {}))
    line.on_epoch(EpochEnd(0, "train", 3, 4, 1.0, 32, {}, {}, {}, True))
    assert stream.getvalue().startswith("alone 3/4")


def test_where_a_run_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(folders.choose("a", None, "a.toml")[0]) == "runs/a"
    for name in ("a", "a-2"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "resolved.toml").touch()
        folders.RunFolder(Path("runs", name)).write_figures({"state": "finished"})
    chosen, said = folders.choose("a", None, "a.toml")
    assert (str(chosen), said) == ("runs/a-3", "a to a-2 are kept")
    Path("runs", "a-3").mkdir()
    Path("runs", "a-3", "recipe.toml").touch()
    assert str(folders.choose("a", None, "a.toml")[0]) == "runs/a-3", "a start that was cut short is no run"
    Path("runs", "a-3", "letter.txt").touch()
    with pytest.raises(RequestError, match="is no run of limbeck"):
        folders.choose("a", None, "a.toml")


def test_chance_shrinks_with_the_test_set() -> None:
    small, large = (closing.chance("classes", 0.85, 0.87, samples) for samples in (100, 10_000))
    assert small is not None
    assert large is not None
    assert small == pytest.approx(10 * large)
    assert closing.chance("values", 0.5, 0.5, 10) is None
