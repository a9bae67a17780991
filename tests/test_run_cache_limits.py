"""Where the answers of a run's teachers are stored: several teachers, little room, several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck import distill, verify_cache
from limbeck._run import caching
from limbeck._run.screen import silent
from limbeck.errors import RequestError
from tests.test_run_cache import RECIPE, ROOT, place, run, same

__all__ = ["place"]  # a fixture


def test_several_teachers_have_their_answers_side_by_side(place):
    second = '[[teachers]]\nmodel = "cnn-tiny"\noptions = { widths = [4, 4, 8, 8] }\ntrain = { epochs = 1 }\n'
    Path("mine.toml").write_text(
        RECIPE.replace("[teacher]", "[[teachers]]").replace("[student]", second + "[student]")
    )
    figures, said = run()
    assert "960 teacher answers in 4 views" in said
    assert figures["cache"]["written"] == 960
    assert len(set(figures["cache"]["folders"])) == 2
    for folder in figures["cache"]["folders"]:
        assert verify_cache(folder, screen=silent()).checked == 480
    again, _ = run()
    assert again["cache"]["written"] == 0
    assert same("runs/tiny", "runs/tiny-2")


def test_answers_that_would_fill_the_disk_are_not_stored(place, monkeypatch):
    monkeypatch.setattr(caching, "free_bytes", lambda folder: 40_000)
    done = distill("mine.toml", dry_run=True, screen=silent())
    text = " ".join(done.text().split())
    assert "480 answers would take 21.1 kB of 40.0 kB free disk" in text
    with pytest.raises(RequestError, match="480 answers would take") as caught:
        distill("mine.toml", overrides=["cache.mode=require"], dry_run=True, screen=silent())
    assert "cache.top_k" in str(caught.value)


def in_two_processes(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command += ["-m", "limbeck", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("480 teacher answers in 4 views") == 1
    return done


def hold_whole_views(folder: Path) -> None:
    checked = verify_cache(folder, screen=silent())
    assert checked.views == {1: 120, 2: 120, 3: 120, 4: 120}
    assert not checked.damaged


def test_two_processes_share_the_writing_out(place):
    in_two_processes("distill", "mine.toml", "--set", "train.epochs=4")
    hold_whole_views(next(Path("runs/cache").iterdir()))


def test_two_processes_share_it_out_ahead_of_time(place):
    run()
    weights = ("--set", "teacher.weights=runs/tiny/teacher", "--set", "cache.folder=ahead")
    done = in_two_processes("cache", "mine.toml", *weights)
    folder = next(Path("ahead").iterdir())
    assert done.stdout.count(folder.as_posix()) == 1  # one of them speaks
    hold_whole_views(folder)
