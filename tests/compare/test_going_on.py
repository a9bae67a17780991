"""Comparisons that are stopped: by a kill, by a signal; the same command goes on to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import limbeck
from limbeck._run.folder import RunFolder
from limbeck._run.screen import silent
from limbeck.errors import RequestError
from limbeck.recipe import Recipe
from tests.compare.tiny import TABLES, recipe, written

ROOT = Path(__file__).parents[2]
#: The student alone: one process a seed, with many short epochs to be stopped in.
LONG = recipe("long", "plain", train={"epochs": 50, "batch_size": 16})


def begun(folder: Path, file: str) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "limbeck", "compare", file, "--seeds", "2,", "--output", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.02)


def is_free(run: RunFolder) -> bool:
    """Whether no process holds a run."""
    try:
        with run.locked():
            return True
    except RequestError:
        return False


def in_the_middle(run: RunFolder) -> bool:
    """Whether some epochs are over, and others are not."""
    return 3 <= len(run.metrics()) < 30


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nobody stops."""
    tables = {**TABLES, "train": LONG.train.model_dump(exclude_unset=True)}
    tables.pop("teacher")
    own = Recipe(name="long", seed=2, method={"name": "plain"}, **tables, export={"to": []})
    folder = tmp_path_factory.mktemp("whole") / "run"
    limbeck.distill(own, output=folder, screen=silent())
    return (folder / "student" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_of_a_run(number: int, tmp_path: Path, expected: bytes) -> None:
    (file,) = written(tmp_path, LONG)
    folder = tmp_path / "comparison"
    run = RunFolder(folder / "cells" / "long-seed2")
    command = begun(folder, file)
    wait_until(lambda: in_the_middle(run), "a few epochs")
    os.kill(command.pid, number)
    _, said = command.communicate(timeout=60)
    assert command.returncode == (-9 if number == signal.SIGKILL else 143)
    if number == signal.SIGTERM:
        assert "go on: the same command again" in said
    wait_until(lambda: is_free(run), "the run to end with the command")
    assert run.figures()["state"] == "running"
    again = begun(folder, file)
    out, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "long" in out
    assert run.figures()["state"] == "finished"
    assert (run.path / "student" / "model.safetensors").read_bytes() == expected
    assert len(run.metrics()) == LONG.train.epochs
