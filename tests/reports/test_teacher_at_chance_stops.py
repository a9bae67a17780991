"""M3: a teacher that was almost random, or whose classes were in another order, taught on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from limbeck import check, distill
from limbeck._run.screen import silent
from limbeck.errors import RequestError

MODULE = """
import torch
from torch import nn

def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    rows = torch.eye(4)[labels] + 0.1 * torch.randn(200, 4, generator=generator)
    return (rows[:100], labels[:100]), (rows[100:], labels[100:])

def network(num_classes, channels):
    return nn.Sequential(nn.Linear(channels, num_classes))
"""

RECIPE = """
name = "chance"
[data]
source = "chance_m3:data"
[teacher]
model = "chance_m3:network"
weights = "teacher.safetensors"
[student]
model = "chance_m3:network"
[train]
epochs = 1
"""


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "chance_m3", raising=False)
    Path("chance_m3.py").write_text(MODULE, encoding="ascii")
    Path("mine.toml").write_text(RECIPE, encoding="ascii")


def plan(weight: torch.Tensor, *changes: str) -> str:
    save_file({"0.weight": weight.contiguous(), "0.bias": torch.zeros(4)}, "teacher.safetensors")
    return distill("mine.toml", overrides=changes, dry_run=True, screen=silent()).text()


def test_a_good_teacher_passes() -> None:
    assert "weights from teacher.safetensors" in plan(torch.eye(4))


def test_a_teacher_at_chance_stops_unless_told_to_go_on() -> None:
    blind = torch.eye(4)[[0, 0, 0, 0]]
    with pytest.raises(RequestError, match="no better than chance") as caught:
        plan(blind)
    assert caught.value.where == "mine.toml:7:11"
    assert "accept_chance" in (caught.value.fix or "")
    assert "in all" in plan(blind, "teacher.accept_chance=true")


def test_classes_in_another_order_are_named_as_the_cause() -> None:
    with pytest.raises(RequestError, match="with its classes in another order it would reach 100"):
        plan(torch.eye(4)[[1, 2, 3, 0]])


def test_renamed_weights_are_refused_when_they_are_read() -> None:
    save_file({"other.weight": torch.eye(4), "other.bias": torch.zeros(4)}, "teacher.safetensors")
    with pytest.raises(RequestError, match=r"0\.weight"):
        distill("mine.toml", dry_run=True, screen=silent())


def test_check_names_the_fault_its_line_and_the_cause() -> None:
    for weight, code in ((torch.eye(4)[[0, 0, 0, 0]], "K104"), (torch.eye(4)[[1, 2, 3, 0]], "K105")):
        save_file({"0.weight": weight.contiguous(), "0.bias": torch.zeros(4)}, "teacher.safetensors")
        done = check("mine.toml", screen=silent())
        assert [each.code for each in done.errors] == [code], done.text()
        assert done.errors[0].where == "mine.toml:7:1"
