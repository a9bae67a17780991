"""export, measure and predict of one small finished run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import limbeck
from limbeck import cli
from limbeck._run.screen import silent
from limbeck.errors import RequestError

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

RECIPE = """name = "rows"
[data]
source = "csv:rows.csv"
[teacher]
model = "mlp"
train = { epochs = 2 }
[student]
model = "mlp"
options = { widths = [8] }
[train]
epochs = 2
batch_size = 32
[machine]
threads = 1
[export]
int8 = true
calibration = 64
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("rows")
    before = Path.cwd()
    os.chdir(path)
    rows = "\n".join(f"{n % 17},{(n * n) % 13},{'red' if n % 3 else 'blue'},{n % 2}" for n in range(300))
    Path("rows.csv").write_text(f"a,b,c,label\n{rows}\n", encoding="ascii")
    Path("mine.toml").write_text(RECIPE, encoding="utf-8")
    limbeck.distill("mine.toml", screen=silent())
    yield path
    os.chdir(before)


def test_a_run_ends_with_float_and_int8(place):
    run = limbeck.Run.open("runs/rows")
    told = run.figures["networks"]["onnx_int8"]
    assert told["calibration_samples"] == 64
    assert {"validation", "validation_before", "agreement", "predicted", "verdict"} <= set(told)
    assert "  as ONNX int8" in run.table.text()
    assert run.figures["files"].count("exports/run_onnx.py") == 1
    assert run.figures["networks"]["onnx"]["difference"] <= 1e-4


def test_export_writes_again_and_remembers(place):
    done = limbeck.export("runs/rows", to=["torch", "onnx"], int8=True, max_drop=100)
    assert list(done.files) == ["torch", "onnx", "onnx_int8"]
    assert done.failed == []
    for name in ("torch/model.pt2", "onnx/model.onnx", "onnx/model_int8.onnx", "run_onnx.py"):
        assert (place / "runs" / "rows" / "exports" / name).is_file()
    assert max(map(len, done.text().splitlines())) <= 80
    assert len(done._repr_html_()) < 20_000
    assert json.loads(json.dumps(done.to_json()))["schema"] == 1
    run = limbeck.Run.open("runs/rows")
    assert run.figures["networks"]["torch"]["dtype"] == "float32"
    assert "exports/torch/model.pt2" in run.figures["files"]
    assert "as PyTorch program" in run.table.text()


def test_the_limit_decides_on_validation_and_the_exit_code_follows(place, capsys):
    code = 0
    try:
        cli.main(["export", "runs/rows", "--int8", "--max-drop", "0", "--json"])
    except SystemExit as ended:
        code = ended.code
    told = json.loads(capsys.readouterr().out)
    kept = (place / "runs" / "rows" / "exports" / "onnx" / "model_int8.onnx").is_file()
    assert kept == (not told["failed"]) == ("onnx_int8" in told["files"])
    assert code == (0 if kept else 1)


def test_int8_needs_the_onnx_file(place):
    with pytest.raises(RequestError, match="int8 is made from the ONNX file"):
        limbeck.export("runs/rows", to="torch", int8=True)


def test_predict_shows_teacher_and_student_for_rows(place):
    Path("new.csv").write_text("c,b,a\nred,3,4\nblue,1,2\n", encoding="ascii")
    done = limbeck.predict("runs/rows", "new.csv")
    assert [sample.name for sample in done.samples] == ["new.csv, row 0", "new.csv, row 1"]
    assert list(done.samples[0].answers) == ["teacher", "student"]
    assert "they " in done.text()
    of_file = limbeck.predict("runs/rows/exports/onnx/model.onnx", "new.csv")
    student = dict(done.samples[0].answers["student"])
    for name, share in of_file.samples[0].answers["model.onnx"]:
        assert share == pytest.approx(student[name], abs=1e-4)
    Path("short.csv").write_text("a,c\n1,red\n", encoding="ascii")
    with pytest.raises(RequestError, match="has no column 'b'"):
        limbeck.predict("runs/rows", "short.csv")


def test_measure_tells_all_of_a_run_and_stores_it(place):
    done = limbeck.measure("runs/rows", output="figures.json")
    assert {"teacher", "student", "model.onnx", "model_int8.onnx"} <= set(done.models)
    student = done.models["student"]
    assert student["operations"] > 0
    assert student["compressed_bytes"] > 0
    assert {cell["batch"] for cell in student["latency"]} == {1, 8, 64}
    assert len(done._repr_html_()) < 20_000
    stored = json.loads(Path("figures.json").read_text())
    stored["machine"]["processor"] = "Abacus 1"
    Path("old.json").write_text(json.dumps(stored), encoding="ascii")
    both = limbeck.measure(["runs/rows/exports/onnx/model.onnx", "old.json"], other_machine=True)
    assert "old.json was measured on Abacus 1" in both.text()
    with pytest.raises(RequestError, match="nothing to measure"):
        limbeck.measure([])
