"""`distill` from plan to table: what is written when, how it goes on, what the screen shows."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from limbeck import Recipe, Run, cli, distill
from limbeck._run.folder import RunFolder
from limbeck._run.plan import MOST_LINES
from limbeck._run.screen import Screen, silent
from limbeck.errors import RequestError

ROOT = Path(__file__).parent.parent

RECIPE = """name = "tiny"  # a comment
[data]
source = "fashion-small"
limit = 120
labels = 60
[teacher]
model = "cnn-tiny"
train = { epochs = 1 }
[student]
model = "cnn-tiny"
options = { widths = [4, 4, 8, 8] }
[method]
name = "kd"
[train]
epochs = 2
batch_size = 32
[machine]
threads = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recipe and one finished run, shared by the tests that only look."""
    path = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(path)
    try:
        Path("mine.toml").write_text(RECIPE, encoding="utf-8")
        stream = io.StringIO()
        distill("mine.toml", overrides=["train.batch_size=40"], screen=Screen(stream, live=False))
        Path("said.txt").write_text(stream.getvalue(), encoding="utf-8")
        yield path
    finally:
        os.chdir(before)


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(place)
    return Run.open("runs/tiny")


# -- a finished run ------------------------------------------------------------------------------------------


def test_files_of_a_run(run: Run) -> None:
    folder = run.folder
    assert "# a comment" in (folder / "recipe.toml").read_text()
    assert Recipe.load(folder / "recipe.toml").train.batch_size == 40
    resolved = Recipe.load(folder / "resolved.toml")
    assert resolved.machine.precision != "auto"  # which one depends on the processor
    assert (resolved.machine.device, resolved.machine.layout) == ("cpu", "channels_last")
    assert resolved.teacher is not None
    assert resolved.teacher.train.batch_size == 40
    assert "warmup" not in resolved.method.hyperparameters
    assert resolved.method.hyperparameters["variant"] == "soft"
    figures = json.loads((folder / "run.json").read_text())
    assert (figures["schema"], figures["state"]) == (1, "finished")
    assert figures["machine"]["versions"]["torch"] == version("torch")
    assert set(figures["networks"]) >= {"teacher", "alone", "distilled", "onnx"}
    assert all(phase["cost"]["extra_parameters"] == 0 for phase in figures["phases"])
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [entry["phase"] for entry in entries] == ["teacher 0", "alone", "alone", "distil", "distil"]
    assert "in all" in (folder / "log.txt").read_text()
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (folder / "student" / name).is_file()
    assert (folder / "exports" / "onnx" / "model.onnx").is_file()
    assert not list(folder.glob(".*.draft"))


def test_the_plan_has_at_most_twelve_lines_and_the_phases_end_in_lines(place: Path) -> None:
    said = (place / "said.txt").read_text().splitlines()
    start = next(number for number, line in enumerate(said) if line.startswith("plan for runs/tiny"))
    end = next(number for number, line in enumerate(said) if line.startswith("teacher"))
    assert end - start + 1 <= MOST_LINES
    assert max(map(len, said[:end])) <= 80
    plan = "\n".join(said[:end])
    assert "120 train (60 labels)" in plan
    assert "same bits on this machine with 1 thread" in plan.replace("\n           ", " ")
    for phase in ("teacher  1/1", "alone    2/2", "distil   2/2", "finish   "):
        assert any(line.startswith(phase) for line in said), phase


def test_the_test_set_gives_the_table(run: Run) -> None:
    text = run.table.text()
    assert text.splitlines()[0].split() == ["test", "parameters", "file", "latency"]
    for row in ("teacher", "student alone", "student distilled", "  as ONNX"):
        assert f"\n{row}" in text
    assert "differs by" in text
    assert "latency: median of" in text
    assert "than its teacher" in repr(run)
    assert "\ndistil step " in repr(run)
    assert repr(run) == run.text()


def test_a_run_shows_itself_in_a_notebook(run: Run) -> None:
    page = run._repr_html_()
    assert "<table" in page
    assert "<script" not in page
    assert len(page) < 20_000
    assert len(repr(run)) < 2_000


def test_the_student_is_ready_to_predict(run: Run) -> None:
    student = run.student()
    assert student.logits(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert student.classes[0] == "T-shirt/top"


def test_a_finished_run_is_shown_and_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run.folder / "run.json").read_bytes()
    assert distill(run.folder, screen=silent()).figures == run.figures
    assert distill(str(run.folder), resume=True, screen=silent()).figures == run.figures
    plan = distill("mine.toml", dry_run=True, screen=silent()).text()
    assert "plan for runs/tiny-2 (tiny is finished and kept)" in plan
    with pytest.raises(RequestError, match="holds a finished run"):
        distill("mine.toml", output="runs/tiny", screen=silent())
    assert (run.folder / "run.json").read_bytes() == before


def test_the_resolved_recipe_gives_the_same_run(run: Run, tmp_path: Path) -> None:
    again = distill(run.folder / "resolved.toml", output=tmp_path / "again", screen=silent())
    for name in ("teacher", "alone", "distilled"):
        assert again.figures["networks"][name]["score"] == run.figures["networks"][name]["score"]
    one, two = (path / "student" / "model.safetensors" for path in (run.folder, again.folder))
    assert one.read_bytes() == two.read_bytes()


# -- before and while it runs --------------------------------------------------------------------------------


ROWS = """
import torch

def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 4
    rows = torch.eye(4)[labels] + 0.4 * torch.randn(160, 4, generator=generator)
    return tuple((rows[a:b], labels[a:b]) for a, b in ((0, 96), (96, 128), (128, 160)))
"""

QUICK = """name = "quick"
[data]
source = "rows_of_test_run:data"
[teacher]
model = "mlp"
train = { epochs = 1 }
[student]
model = "mlp"
[train]
epochs = 2
batch_size = 32
[machine]
threads = 1
[export]
to = []
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe for rows of numbers, which trains in a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rows_of_test_run", raising=False)
    Path("rows_of_test_run.py").write_text(ROWS, encoding="ascii")
    Path("mine.toml").write_text(QUICK, encoding="utf-8")
    return tmp_path


def test_a_dry_run_writes_nothing(here: Path) -> None:
    planned = distill("mine.toml", dry_run=True, screen=silent())
    assert "in all" in repr(planned)
    assert planned.to_json()["plan"]["parts"][0]["name"] == "data"
    assert not (here / "runs").exists()
    with pytest.raises(RequestError, match="not finished"):
        _ = planned.table


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "limbeck", "distill", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for(text: str, process: subprocess.Popen[str]) -> None:
    """Until the log of the run holds a text."""
    path = Path("runs/quick/log.txt")
    for _ in range(6000):
        if path.is_file() and text in path.read_text():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail(f"{path} never held {text!r}")


LONG = ("train.epochs=12",)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    path = tmp_path_factory.mktemp("straight")
    before = Path.cwd()
    os.chdir(path)
    sys.path.insert(0, str(path))
    try:
        Path("rows_of_test_run.py").write_text(ROWS, encoding="ascii")
        Path("mine.toml").write_text(QUICK, encoding="utf-8")
        return path / distill("mine.toml", overrides=LONG, screen=silent()).folder
    finally:
        os.chdir(before)
        sys.path.remove(str(path))
        sys.modules.pop("rows_of_test_run", None)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_goes_on_to_the_same_student(
    here: Path, straight: Path, number: int, code: int
) -> None:
    process = start("mine.toml", *(word for change in LONG for word in ("--set", change)))
    wait_for("distil: train 2/12", process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    if code > 0:
        assert "  go on: limbeck distill runs/quick --resume" in err
        assert "Traceback" not in err
    with pytest.raises(RequestError, match="holds a run that is not finished"):
        distill("mine.toml", screen=silent())
    with pytest.raises(RequestError, match="is not finished"):
        distill("runs/quick", screen=silent())
    with pytest.raises(RequestError, match="a run goes on as it was begun"):
        distill("runs/quick", resume=True, overrides=["seed=1"], screen=silent())
    resumed = distill("runs/quick", resume=True, screen=silent()).folder
    one, two = (folder / "student" / "model.safetensors" for folder in (resumed, straight))
    assert one.read_bytes() == two.read_bytes()
    epochs = [
        [(entry["phase"], entry["epoch"], entry["terms"]) for entry in RunFolder(folder).metrics()]
        for folder in (resumed, straight)
    ]
    assert epochs[0] == epochs[1]


def test_a_second_process_is_refused_and_other_data_too(here: Path) -> None:
    process = start("mine.toml", "--set", "train.epochs=2000")
    wait_for("alone: train 1/2000", process)
    with pytest.raises(RequestError, match=f"another process works on runs/quick: process {process.pid}"):
        distill("runs/quick", resume=True, screen=silent())
    process.send_signal(signal.SIGINT)
    process.communicate()
    Path("rows_of_test_run.py").write_text(ROWS.replace("seed(0)", "seed(1)"), encoding="ascii")
    sys.modules.pop("rows_of_test_run", None)
    with pytest.raises(RequestError, match="are not those that runs/quick began with"):
        distill("runs/quick", resume=True, screen=silent())


def test_what_fails_is_told_and_its_traceback_is_in_the_log(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as done:
        cli.main(["distill", "mine.toml", "--set", "train.learning_rate=1e30"])
    err = capsys.readouterr().err
    assert done.value.code == 1
    lines = err.splitlines()
    assert "not finite" in next(line for line in lines if line.startswith("error: "))
    assert lines[-1].startswith("  fix: ")
    assert "Traceback" not in err
    assert "Traceback" in (here / "runs" / "quick" / "log.txt").read_text()


def test_json_is_the_figures_alone_on_stdout(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for words in (["--dry-run"], []):
        with pytest.raises(SystemExit) as done:
            cli.main(["distill", "mine.toml", "--json", *words])
        assert done.value.code == 0
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert found["schema"] == 1
        assert "plan" in found
        assert ("networks" in found) == (not words)
        assert bool(err) == (not words)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("plain", {"distilled"}),
        ("peer_mutual_kd", {"teacher", "alone", "distilled"}),
    ],
)
def test_methods_of_other_kinds(here: Path, name: str, rows: set[str]) -> None:
    done = distill("mine.toml", overrides={"train.epochs": 1, "method.name": name}, screen=silent())
    assert set(done.figures["networks"]) == rows
    assert (done.folder / "student" / "model.safetensors").is_file()


def test_weights_of_a_run_are_taken_by_the_next(here: Path) -> None:
    first = distill("mine.toml", screen=silent())
    changes = {"teacher.weights": f"{first.folder}/teacher", "student.weights": f"{first.folder}/student"}
    changes |= {"teacher.accept_chance": True, "train.epochs": 0}
    second = distill("mine.toml", overrides=changes, screen=silent())
    assert second.folder == Path("runs/quick-2")
    for name in ("teacher", "distilled"):
        assert second.figures["networks"][name]["score"] == first.figures["networks"][name]["score"]


def test_a_cohort_of_several_architectures_is_saved_by_the_right_one(here: Path) -> None:
    text = QUICK.replace(
        '[student]\nmodel = "mlp"',
        '[[students]]\nmodel = "mlp"\n[[students]]\nmodel = "mlp"\noptions = { widths = [9] }',
    )
    Path("mine.toml").write_text(text + '[method]\nname = "peer_mutual_kd"\ndeploy = 1\n', encoding="utf-8")
    done = distill("mine.toml", screen=silent())
    assert done.student().architecture.options == {"widths": [9]}


def test_own_code_is_named_in_the_plan(here: Path) -> None:
    Path("own_of_test_run.py").write_text(OWN, encoding="ascii")
    planned = distill(
        "mine.toml", overrides=["method.name=own_of_test_run:Halved"], dry_run=True, screen=silent()
    )
    assert planned.plan is not None
    assert any("own_of_test_run:Halved" in note for note in planned.plan.notes)
    assert any("rows_of_test_run:data" in note for note in planned.plan.notes)


OWN = """
from dataclasses import replace
from limbeck.methods import KD

class Halved(KD):
    card = replace(KD.card, slug="halved")
"""


def test_two_processes_make_one_run(here: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*launch, "-m", "limbeck", "distill", "mine.toml", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["state"] == "finished"
    assert len(RunFolder(here / "runs" / "quick").metrics()) == 5
