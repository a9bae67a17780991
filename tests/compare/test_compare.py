"""Whole comparisons: every run in a real process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck import cli
from limbeck._compare.comparison import Comparison
from limbeck._run.folder import RunFolder
from limbeck._run.screen import Screen, silent
from limbeck.errors import RequestError
from tests.compare.tiny import recipe, written

BREAKS = recipe("breaks", "tests.compare.tiny:Breaks")
FILES = [f"leaderboard.{end}" for end in ("md", "csv", "json", "html")]


def scores(done: Comparison) -> dict[str, dict[str, float]]:
    """By line and seed."""
    return {
        row["name"]: {str(seed): value for seed, value in row["test"]["seeds"].items()}
        for row in done.figures["rows"]
        if row["test"] is not None
    }


def times(folder: Path) -> dict[str, int]:
    """When each run was finished, by its name."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("cells/*/run.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("compare") / "one"
    return limbeck.compare([recipe(), BREAKS], seeds=[4], output=folder, jobs=2, screen=silent())


def test_each_run_is_a_run_and_the_teacher_is_trained_once(finished: Comparison) -> None:
    names = {path.name for path in (finished.folder / "cells").iterdir() if path.is_dir()}
    assert names == {"teacher", "alone-seed4", "kd-seed4", "breaks-seed4"}
    run = limbeck.Run.open(finished.folder / "cells" / "kd-seed4")
    assert run.finished
    assert [phase["name"] for phase in run.figures["phases"]] == ["teacher 0", "distil"]  # no student alone
    assert run.figures["cache"]["on"]
    assert run.student().predict is not None
    teacher = limbeck.Run.open(finished.folder / "cells" / "teacher").figures["networks"]["distilled"]
    assert run.figures["networks"]["teacher"]["score"] == teacher["score"]
    assert finished.figures["teachers"][0]["score"] == teacher["score"]


def test_the_leaderboard_is_written_in_four_forms(finished: Comparison) -> None:
    for name in FILES:
        assert "kd" in (finished.folder / name).read_text("utf-8")
    stored = json.loads((finished.folder / "leaderboard.json").read_text("utf-8"))
    assert stored == json.loads(json.dumps(finished.to_json()))
    assert stored["schema"] == 1
    assert "80" not in stored["facts"][0] or "train" in stored["facts"][0]


def test_a_run_that_fails_is_named_and_the_others_go_on(finished: Comparison) -> None:
    assert set(scores(finished)) == {"alone", "kd"}
    (reason,) = finished.failed.values()
    assert reason.startswith("ValueError: no second epoch | <b>here</b>; see ")
    said = finished.folder / "cells" / "breaks-seed4.txt"
    assert "a line of the user's own" in said.read_text("utf-8")
    assert "failed" in finished.text()
    assert "<b>" not in (finished.folder / "leaderboard.html").read_text("utf-8")


def test_the_same_again_runs_only_what_failed_and_further_seeds_are_added(finished: Comparison) -> None:
    before = times(finished.folder)
    again = limbeck.compare([recipe()], seeds=[4], output=finished.folder, screen=silent())
    assert times(finished.folder) == before
    assert scores(again) == {name: scores(finished)[name] for name in ("alone", "kd")}
    assert not again.failed
    more = limbeck.compare([recipe()], seeds=[4, 5], output=finished.folder, screen=silent())
    after = times(finished.folder)
    assert set(after) - set(before) == {"alone-seed5", "kd-seed5"}
    assert {name: after[name] for name in before} == before
    assert set(scores(more)["kd"]) == {"4", "5"}
    assert scores(more)["kd"]["4"] == scores(finished)["kd"]["4"]  # two at once or one


def test_other_settings_under_the_same_name_are_refused(finished: Comparison) -> None:
    with pytest.raises(RequestError, match="was begun with other settings of kd"):
        limbeck.compare(
            [recipe()],
            seeds=[4],
            overrides={"method.temperature": 2.0},
            output=finished.folder,
            screen=silent(),
        )


def test_a_second_comparison_on_one_folder_is_refused(finished: Comparison) -> None:
    code = (
        "import sys; from pathlib import Path; from limbeck._run.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(finished.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match="another process works on"):
            limbeck.compare([recipe()], seeds=[4], output=finished.folder, screen=silent())
    finally:
        other.communicate()
    with RunFolder(finished.folder).locked():
        pass


class Lines:
    """A stream that keeps what is said."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing to do."""

    def isatty(self) -> bool:
        return False


def test_a_plan_comes_first_and_alone_writes_nothing(tmp_path: Path) -> None:
    done = limbeck.compare(recipe(), seeds=3, output=tmp_path / "x", dry_run=True, screen=silent())
    assert list(tmp_path.iterdir()) == []
    assert done.plan is not None
    names = [part.name for part in done.plan.parts]
    assert names == ["data", "teacher", "alone", "kd", "runs"]
    assert "3 seeds" in done.text()
    assert done.plan.seconds > 0
    assert done.to_json()["plan"]["folder"].endswith("x")
    assert done._repr_html_().startswith("<pre>")
    with pytest.raises(RequestError, match="was only planned"):
        _ = done.table


def test_a_teacher_that_fails_takes_its_students_with_it(tmp_path: Path) -> None:
    said = Lines()
    short = {"epochs": 1, "batch_size": 16}
    # Diverges at once: the teacher's own rate.
    wild = {"model": "cnn-tiny", "weights": "train", "train": {"learning_rate": 1e30}}
    done = limbeck.compare(
        recipe(teacher=wild, train=short),
        seeds=[0],
        output=tmp_path / "x",
        screen=Screen(said, live=False),  # type: ignore[arg-type]
    )
    assert set(scores(done)) == {"alone"}
    (reason,) = done.failed.values()
    assert reason.startswith("its teacher was not trained: ")
    lines = [text for text in said.text.splitlines() if text.startswith(("1/3", "2/3", "3/3"))]
    assert "teacher  failed: " in lines[0]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return tmp_path


def test_the_command(elsewhere: Path, finished: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    files = written(elsewhere, recipe())
    words: list[Any] = ["compare", *files, "--seeds", "4,", "--output", str(finished.folder)]
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--json"])
    out, _ = capsys.readouterr()
    assert done.value.code == 0
    assert json.loads(out)["seeds"] == [4]
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "-q"])
    out, err = capsys.readouterr()
    assert done.value.code == 0
    assert "against alone [95 %]" in out
    assert err == ""


def test_the_default_folder_is_named_after_the_recipes(elsewhere: Path) -> None:
    done = limbeck.compare([recipe(), recipe("other", "sskd")], dry_run=True, screen=silent())
    assert done.folder == Path("runs/compare-kd-other")
