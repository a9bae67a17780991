"""Wrong calls in Python end with one message and its fix too, and write nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import limbeck
from limbeck.errors import RequestError
from tests.bad_input import cases_of_files, cases_of_weights
from tests.bad_input.cases import RECIPE, Files
from tests.bad_input.test_bad_input import contents

CALLS: dict[str, tuple[Callable[[], object], str, str, Files | None]] = {
    "load-nothing": (lambda: limbeck.load("nowhere"), "there is no folder nowhere", "folder of a run", None),
    "load-no-student": (lambda: limbeck.load("."), ". holds no student", "a finished run", None),
    "load-unfinished": (
        lambda: limbeck.load("runs/wrong"),
        "runs/wrong holds no student",
        "a finished run",
        cases_of_files.unfinished,
    ),
    "load-damaged": (
        lambda: limbeck.load("old"),
        "old/student/model.safetensors is damaged",
        "copy or download",
        cases_of_weights.changed("model.safetensors", 700),
    ),
    "load-edited": (
        lambda: limbeck.load(Path("old/student")),
        "old/student/config.json is damaged or was edited",
        "copy the whole folder",
        cases_of_weights.changed("config.json", 99),
    ),
    "load-newer": (
        lambda: limbeck.load("old"),
        "old/student/config.json has format 7; this limbeck reads up to 1",
        "the limbeck that wrote it",
        cases_of_weights.newer,
    ),
    "load-without-weights": (
        lambda: limbeck.load("old"),
        "there is no file old/student/model.safetensors",
        "copy the whole folder",
        cases_of_weights.without("model.safetensors"),
    ),
    "open-nothing": (lambda: limbeck.Run.open("nowhere"), "nowhere is no run", "limbeck distill", None),
    "open-newer": (
        lambda: limbeck.Run.open("runs/wrong"),
        "runs/wrong/run.json has schema 9; this limbeck reads up to 1",
        "the limbeck that wrote it",
        cases_of_files.run_with(cases_of_files.newer),
    ),
    "table-of-an-unfinished-run": (
        lambda: limbeck.Run.open("runs/wrong").table,
        "runs/wrong is not finished",
        "limbeck distill runs/wrong --resume",
        cases_of_files.unfinished,
    ),
    "distill-unknown-key": (
        lambda: limbeck.distill("mine.toml", overrides={"train.epoch": 3}),
        "unknown key train.epoch",
        "epochs",
        None,
    ),
    "distill-text-for-number": (
        lambda: limbeck.distill("mine.toml", overrides={"train.epochs": "3"}),
        'train.epochs needs a whole number, not "3"',
        "without quotes",
        None,
    ),
    "distill-resume-nothing": (
        lambda: limbeck.distill("mine.toml", resume=True),
        "there is no run runs/wrong to go on with",
        "leave --resume out",
        None,
    ),
    "layers-example-and-size": (
        lambda: limbeck.list_layers(nn.Linear(3, 2), size=8, example=torch.rand(2, 3)),
        "size and channels are those of the example",
        "leave them out",
        None,
    ),
    "layers-of-other-inputs": (
        lambda: limbeck.list_layers(nn.Linear(3, 2), example=torch.rand(2, 5)),
        "the model does not take 5",
        "example=INPUTS",
        None,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_call(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, said, fix, files = CALLS[name]
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(RECIPE, encoding="utf-8")
    if files is not None:
        files(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RequestError) as caught:
        call()
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert fix in str(caught.value.fix)
    assert contents(tmp_path) == before
