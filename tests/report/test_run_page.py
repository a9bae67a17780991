"""The page of real runs: pictures, rows, real values; what a run keeps for it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch

import limbeck
from limbeck import Run, cli, distill, report
from limbeck._report import answers as compare
from limbeck._report.page import GENERATOR
from limbeck._run import evidence
from limbeck._run.folder import RunFolder
from limbeck.data.sources import load_source
from limbeck.errors import RequestError
from tests.report.test_page import Read, headings
from tests.test_run import RECIPE


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one finished run, shared by the tests that only look."""
    path = tmp_path_factory.mktemp("runs")
    with chdir(path):
        Path("mine.toml").write_text(RECIPE, encoding="utf-8")
        distill("mine.toml", overrides=["method.temperature=2.0"])
        yield path


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(place)
    return Run.open("runs/tiny")


def test_a_run_ends_with_its_page(run: Run) -> None:
    assert "report.html" in run.figures["files"]
    text = (run.folder / "report.html").read_text("ascii")
    assert GENERATOR in text
    assert len(text) < 300_000
    read = Read(text)
    places = {attributes.get("id") for _, attributes in read.elements}
    for section in ("models", "trade", "helped", "training", "classes-1", "agreement-1", "disputes-1"):
        assert section in places
    assert {"files-1", "cost-1", "repeat-1"} <= places
    assert headings(read)[0] == 1
    assert len(read.named("img")) == len(evidence.read(RunFolder(run.folder)).disputed)  # type: ignore[union-attr]
    assert "method.temperature" in text
    assert run.figures["data"]["fingerprint"] in text
    assert "read once" in text


def test_findings_are_in_run_json(run: Run) -> None:
    codes = [finding["code"] for finding in run.figures["findings"]]
    assert "R101" in codes
    assert all({"severity", "message", "where", "fix"} <= set(each) for each in run.figures["findings"])


def test_kept_answers_are_those_of_the_networks(run: Run) -> None:
    held = evidence.read(RunFolder(run.folder))
    assert held is not None
    splits = load_source("fashion-small", limit=120)
    assert splits.test is not None
    batch = splits.test.batch(held.positions.tolist())
    assert held.target.tolist() == batch["targets"].tolist()
    student = limbeck.load(run.folder / "student")
    with torch.no_grad():
        probabilities = student.network(batch["inputs"]).softmax(1)
    answers = held.networks["distilled"]
    assert (answers.predicted == probabilities.argmax(1).numpy()).mean() > 0.999
    np.testing.assert_allclose(answers.confidence, probabilities.amax(1).numpy(), atol=1e-4)
    score = run.figures["networks"]["distilled"]["score"]
    assert float((answers.predicted == held.target).mean()) == pytest.approx(score)


def test_run_json_sums_the_answers_up(run: Run) -> None:
    held = evidence.read(RunFolder(run.folder))
    assert held is not None
    told = run.figures["evidence"]
    for key, answers in held.networks.items():
        error = compare.calibration_error(compare.reliability(answers, held.target))
        assert told["calibration_error"][key] == pytest.approx(error, abs=1e-5)
    counts = told["agreement"]
    total = sum(counts[key] for key in ("both_right", "only_teacher", "only_student", "neither"))
    assert total == told["samples"] == 2000


def test_the_data_behind_the_pictures(run: Run) -> None:
    files = (run.folder / "plots").glob("*.csv")
    tables = {path.stem: list(csv.DictReader(path.read_text("utf-8").splitlines())) for path in files}
    assert set(tables) == {
        "models", "validation", "terms", "classes", "confusions", "reliability", "agreement",
    }  # fmt: skip
    entries = [entry for entry in RunFolder(run.folder).metrics() if entry["phase"] == "distil"]
    hard = [float(row["value"]) for row in tables["terms"] if row["term"] == "hard"]
    assert hard == [entry["terms"]["hard"] for entry in entries]
    chosen = [row for row in tables["validation"] if row["chosen"] == "1"]
    assert len(chosen) == 3
    assert sum(int(row["samples"]) for row in tables["agreement"]) == 2000
    assert sum(int(row["samples"]) for row in tables["confusions"]) == 2000 * 3


def test_the_folder_alone_is_enough(run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run.folder, moved, ignore=shutil.ignore_patterns("report.html", "checkpoints", "plots"))
    made = report(moved)
    assert made.path == moved / "report.html"
    text = made.path.read_text("ascii")
    kept = (run.folder / "report.html").read_text("ascii")
    assert text.replace(str(moved), str(run.folder.as_posix())) == kept
    assert json.dumps(made.to_json())
    assert made.to_json()["findings"] == run.figures["findings"]
    assert len(made._repr_html_()) < 20_000
    assert str(made) == made.text()


def test_without_kept_answers_their_sections_are_left_out(run: Run, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(run.folder, older, ignore=shutil.ignore_patterns("evidence"))
    read = Read(report(older).path.read_text("ascii"))
    places = {attributes.get("id") for _, attributes in read.elements}
    assert not {"classes-1", "agreement-1", "disputes-1"} & places
    assert "helped" in places


def test_a_changed_byte_of_the_evidence_is_named(run: Run, tmp_path: Path) -> None:
    for name in ("answers.npz", "evidence.json"):
        copy = tmp_path / name
        shutil.copytree(run.folder, copy)
        file = copy / "evidence" / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(RequestError, match=name):
            report(copy)
        file.unlink()
        with pytest.raises(RequestError, match=f"{name} is missing"):
            report(copy)


def test_several_runs_go_beside_their_folders(run: Run, tmp_path: Path) -> None:
    copies = [tmp_path / "runs" / name for name in ("a", "b")]
    for copy in copies:
        shutil.copytree(run.folder, copy)
    made = report([*copies, copies[0]])
    assert made.path == tmp_path / "runs" / "report.html"
    assert made.folders == tuple(map(str, copies))
    assert Read(made.path.read_text("ascii")).named("details")
    again = report(copies, output=tmp_path / "deep" / "page.html")
    assert again.path.is_file()
    report(copies, output=again.path)  # a page of ours is written anew


def test_the_verb(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["report", "--output", "page.html", "--json"])
    out, err = capsys.readouterr()
    assert done.value.code == 0
    assert "the newest run: runs/tiny" in err
    told = json.loads(out)
    assert (told["schema"], told["file"], told["runs"]) == (1, "page.html", ["runs/tiny"])
    with pytest.raises(SystemExit):
        cli.main(["report", "runs/tiny"])
    out, err = capsys.readouterr()
    assert out.startswith("runs/tiny/report.html")
    assert err == ""


# -- other inputs and targets --------------------------------------------------------------------------------

NETWORKS = """from torch import nn

def small(outputs=1):
    return nn.Linear(3, outputs)
"""


def _rows(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> Run:
    """A run on a table whose column names and classes are hostile."""
    draw = np.random.default_rng(0)
    lines = [f"<b>width,height,kind,{target}"]
    for _ in range(160):
        width, height = draw.normal(size=2)
        kind = "<i>x" if draw.random() < 0.5 else "y"
        label = "<script>" if width + draw.normal() > 0 else "b & c"
        lines.append(f"{width:.3f},{height:.3f},{kind},{label if target == 'label' else f'{width:.3f}'}")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "report_networks.py").write_text(NETWORKS.replace("3", "4"), encoding="utf-8")
    outputs = 2 if target == "label" else 1
    options = f"options = {{ outputs = {outputs} }}"
    recipe = f"""name = "rows"
[data]
source = "csv:rows.csv"
target = "{target}"
[teacher]
model = "report_networks:small"
{options}
[student]
model = "report_networks:small"
{options}
[train]
epochs = 2
batch_size = 32
"""
    (folder / "rows.toml").write_text(recipe, encoding="utf-8")
    return distill("rows.toml")


def test_rows_in_dispute_show_their_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _rows(tmp_path, monkeypatch, "label")
    held = evidence.read(RunFolder(run.folder))
    assert held is not None
    text = (run.folder / "report.html").read_text("ascii")
    read = Read(text)
    assert read.named("script", "i b") == []
    if held.disputed:
        assert [name for name, _ in held.disputed[0]["values"]] == ["<b>width", "height", "kind"]
        assert "&lt;b&gt;width" in text
    assert "&lt;script&gt;" in text


def test_real_values_have_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _rows(tmp_path, monkeypatch, "value")
    assert not (run.folder / "evidence").exists()
    read = Read((run.folder / "report.html").read_text("ascii"))
    places = {attributes.get("id") for _, attributes in read.elements}
    assert {"models", "helped", "training"} <= places
    assert not {"classes-1", "agreement-1", "disputes-1"} & places
