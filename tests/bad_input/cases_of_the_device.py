"""Wrong requests to export, measure and predict."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bad_input.cases import Case


def _no_onnx(folder: Path) -> None:
    (folder / "a.onnx").write_bytes(b"not a model")


def _no_program(folder: Path) -> None:
    (folder / "a.pt2").write_bytes(b"not a model")


def _another_machine(folder: Path) -> None:
    told = {"schema": 1, "models": {}, "machine": {"processor": "Abacus 1"}}
    (folder / "old.json").write_text(json.dumps(told), encoding="ascii")


def _no_figures(folder: Path) -> None:
    (folder / "old.json").write_text("[]", encoding="ascii")


CASES = [
    Case("export-without-runs", "there is no run in runs", "limbeck distill", words=["export"]),
    Case("export-of-nowhere", "nowhere is no run", "limbeck distill", words=["export", "nowhere"]),
    Case(
        "export-to-an-unknown-format",
        "there is no format 'onx'",
        "onnx",
        words=["export", "nowhere", "--to", "onx"],
    ),
    Case(
        "export-with-a-drop-that-is-no-number",
        "--max-drop much: needed are points",
        "--max-drop 1",
        words=["export", "nowhere", "--max-drop", "much"],
    ),
    Case("calibration-on-validation", "export.calibration", "512", sets=['export.calibration="validation"']),
    Case("a-drop-below-zero", "export.max_drop", "0", sets=["export.max_drop=-1"]),
    Case("preprocessing-nowhere", "export.preprocessing", '"graph"', sets=['export.preprocessing="grap"']),
    Case("measure-of-no-file", "there is no file", "limbeck export RUN", words=["measure", "nowhere.onnx"]),
    Case(
        "measure-of-a-damaged-file",
        "a.onnx is damaged, or no ONNX file",
        "limbeck export RUN",
        words=["measure", "a.onnx"],
        files=_no_onnx,
    ),
    Case(
        "measure-of-a-damaged-program",
        "a.pt2 is damaged, or no program",
        "limbeck export RUN --to torch",
        words=["measure", "a.pt2"],
        files=_no_program,
    ),
    Case(
        "measure-beside-another-machine",
        "old.json was measured on Abacus 1",
        "--other-machine",
        words=["measure", "old.json", "cnn-tiny"],
        files=_another_machine,
    ),
    Case(
        "measure-of-no-figures",
        "old.json holds no figures",
        "--output",
        words=["measure", "old.json"],
        files=_no_figures,
    ),
    Case("predict-of-nowhere", "there is no folder nowhere", "run", words=["predict", "nowhere", "a.png"]),
    Case("predict-without-input", "limbeck predict needs INPUT", "--help", words=["predict", "nowhere"]),
]
