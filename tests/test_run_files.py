"""The files of a run: what was changed since is refused by name, and one process at a time works there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from limbeck import Run, distill
from limbeck._run import folder as folders
from limbeck._run.folder import RunFolder
from limbeck._run.screen import silent
from limbeck._seal import seal
from limbeck.errors import Interrupted, RequestError
from tests.test_run import QUICK, ROOT, ROWS

SEALED = ("run.json", "resolved.toml", "metrics.jsonl")


def _begin(path: Path) -> None:
    (path / "rows_of_test_run.py").write_text(ROWS, encoding="ascii")
    (path / "mine.toml").write_text(QUICK, encoding="utf-8")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run that was stopped after its first phase."""
    path = tmp_path_factory.mktemp("stopped")
    before = Path.cwd()
    os.chdir(path)
    sys.path.insert(0, str(path))
    try:
        _begin(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("limbeck._run.phases.Runner.stop_if_asked", _stop)
            with pytest.raises(Interrupted):
                distill("mine.toml", screen=silent())
        yield path
    finally:
        os.chdir(before)
        sys.path.remove(str(path))
        sys.modules.pop("rows_of_test_run", None)


def _stop(runner: object) -> None:
    raise Interrupted(signal.SIGTERM, "stopped on request")


@pytest.fixture
def stopped(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which we are."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "quick"


def _resume() -> Run:
    return distill("runs/quick", resume=True, screen=silent())


def _refused(file: str) -> str:
    with pytest.raises(RequestError) as caught:
        _resume()
    assert file in caught.value.message
    assert caught.value.fix
    return caught.value.message


def test_the_whole_run_goes_on(stopped: Path) -> None:
    assert _resume().finished
    assert len(RunFolder(stopped).metrics()) == 5
    assert distill("runs/quick", screen=silent()).finished


@pytest.mark.parametrize("name", SEALED)
def test_every_other_byte_is_found(stopped: Path, name: str) -> None:
    path, folder = stopped / name, RunFolder(stopped)
    content = path.read_bytes()
    for position, byte in enumerate(content):
        flipped = bytes([byte ^ 0x04 if byte != 0x0E else 0x0F])
        for changed in (flipped, b"", b"\r\n" if byte == 0x0A else b"\xff"):
            path.write_bytes(content[:position] + changed + content[position + 1 :])
            if name == "metrics.jsonl" and position == len(content) - 1 and changed != b"\r\n":
                assert folder.metrics() == [], "the line that a kill cut short"
                continue
            with pytest.raises(RequestError, match=f"quick/{name}") as caught:
                {"run.json": folder.figures, "resolved.toml": folder.recipe}.get(name, folder.metrics)()
            assert "limbeck distill" in str(caught.value.fix)


@pytest.mark.parametrize("name", SEALED)
def test_nothing_trains_on_what_is_damaged(stopped: Path, name: str) -> None:
    path = stopped / name
    content = path.read_bytes()
    before = {str(file): file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    for position in (3, len(content) // 2, len(content) - 4):
        changed = content[:position] + bytes([content[position] ^ 0x01]) + content[position + 1 :]
        path.write_bytes(changed)
        assert "is damaged or was edited" in _refused(f"quick/{name}")
    path.write_bytes(content)
    after = {str(file): file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    assert after == before


def test_a_changed_checkpoint_is_named(stopped: Path) -> None:
    files = [file for file in (stopped / "checkpoints").rglob("*") if file.is_file()]
    assert len(files) == 6
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] + b"\x00" + content[len(content) // 2 + 1 :])
        assert "is damaged" in _refused(file.relative_to(Path.cwd()).as_posix())
        file.unlink()
        _refused(file.name)
        file.write_bytes(content)
    shutil.rmtree(stopped / "checkpoints" / "teacher-0")  # what the fix says
    assert _resume().finished


def test_missing_files_are_named(stopped: Path) -> None:
    content = (stopped / "run.json").read_bytes()
    (stopped / "run.json").unlink()
    assert _refused("run.json") == "the run runs/quick has no run.json"
    (stopped / "run.json").write_bytes(content)
    (stopped / "resolved.toml").unlink()
    _refused("resolved.toml")


def test_another_recipe_is_not_slipped_in(stopped: Path) -> None:
    path = stopped / "resolved.toml"
    path.write_text(path.read_text().replace("epochs = 2", "epochs = 3"))
    assert "is damaged or was edited" in _refused("resolved.toml")
    again = stopped.parent / "quick-new"
    assert distill(stopped / "recipe.toml", output=again, screen=silent()).finished  # what the fix says


def test_an_edited_recipe_does_not_matter(stopped: Path) -> None:
    (stopped / "recipe.toml").write_text("mine", encoding="utf-8")
    run = _resume()
    assert run.finished
    assert "rows_of_test_run:data" in (run.folder / "report.html").read_text("utf-8")


def test_a_line_that_a_kill_cut_short_is_dropped(stopped: Path) -> None:
    whole = RunFolder(stopped).metrics()
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "alone", "ep')
    assert RunFolder(stopped).metrics() == whole
    run = _resume()
    assert len(RunFolder(stopped).metrics()) == 5
    path = run.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RequestError, match=r"metrics\.jsonl:5 is damaged"):
        RunFolder(run.folder).metrics()


def test_a_newer_version_is_refused_with_both(stopped: Path) -> None:
    figures = {"schema": folders.SCHEMA + 1, "state": "finished"}
    (stopped / "run.json").write_text(seal(figures, indent=1))
    assert "has schema 2; this limbeck reads up to 1" in _refused("run.json")
    with pytest.raises(RequestError, match="has schema 2"):
        Run.open(stopped)


LOCK = """
import sys, time
from pathlib import Path
from limbeck._run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def _held(path: str) -> Iterator[int]:
    """Another process holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_until_the_first_dies(stopped: Path) -> None:
    with _held("runs/quick") as owner:
        assert _refused("runs/quick") == f"another process works on runs/quick: process {owner}"
    assert _resume().finished


def test_a_new_run_is_refused_where_another_process_begins_one(stopped: Path) -> None:
    with _held("new"), pytest.raises(RequestError, match="another process works on new"):
        distill("mine.toml", output="new", screen=silent())
    assert [entry.name for entry in Path("new").iterdir()] == [".lock"]
    assert distill("mine.toml", output="new", screen=silent()).finished


def test_of_two_that_start_at_once_one_is_refused(tmp_path: Path) -> None:
    _begin(tmp_path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "limbeck", "distill", "mine.toml", "--set", "train.epochs=300"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    while all(process.poll() is None for process in processes):
        time.sleep(0.05)
    first, second = sorted(processes, key=lambda process: process.poll() is None)
    said = first.communicate()[1]
    assert first.returncode == 2, said
    assert "another process works on runs/quick" in said
    second.send_signal(signal.SIGINT)
    said = second.communicate()[1]
    assert second.returncode in (0, 130), said
