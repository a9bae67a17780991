"""AI4Bharat/IndicTrans2#77: a student with tied weights cannot be saved, or loads untied."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import limbeck
from limbeck._measure.timing import file_size, parameters
from limbeck.models import load, prepare, save_student

MODULE = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self, num_classes, tie):
        super().__init__()
        self.embedding = nn.Embedding(num_classes, 4)
        self.head = nn.Linear(4, num_classes, bias=False)
        if tie:
            self.head.weight = self.embedding.weight
    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))

def inside(num_classes):
    return Tied(num_classes, True)

def outside(num_classes):
    return Tied(num_classes, False)
"""


@pytest.mark.parametrize("function", ["inside", "outside"])
def test_tied_weights_are_stored_once_and_load_tied(tmp_path, monkeypatch, function):
    name = f"tied_{function}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ids = torch.randint(0, 8, (5, 3))
    built = prepare(f"{name}:{function}", num_classes=8, inputs=ids)
    body = built.network.body
    body.head.weight = body.embedding.weight  # what a training script does after construction
    save_student(tmp_path / "student", built.network, architecture=built.architecture)
    stored = load_file(tmp_path / "student" / "model.safetensors")
    assert list(stored) == ["embedding.weight"]
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["limbeck"]["tied"] == {"head.weight": "embedding.weight"}
    loaded = load(tmp_path / "student")
    assert loaded.network.body.head.weight is loaded.network.body.embedding.weight
    assert torch.equal(loaded.network(ids), built.network(ids))
    assert parameters(loaded.network) == parameters(built.network) == 32
    assert file_size(tmp_path / "student" / "model.safetensors") < 32 * 4 + 200


def test_tied_weights_are_measured_once(tmp_path, monkeypatch):
    (tmp_path / "tied_measured.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    built = prepare("tied_measured:inside", num_classes=8, inputs=torch.randint(0, 8, (5, 3)))
    save_student(tmp_path / "student", built.network, architecture=built.architecture)
    (about,) = limbeck.measure("student").models.values()
    assert about["parameters"] == 32
    assert about["bytes"] < 32 * 4 + 200


def test_part_of_a_larger_tensor_is_stored_alone(tmp_path):
    built = prepare("mlp", num_classes=2, inputs=torch.rand(1, 3), options={"widths": []})
    whole = torch.rand(10, 3)
    built.network.body.fc.weight.data = whole[4:6]
    save_student(tmp_path / "student", built.network, architecture=built.architecture)
    assert torch.equal(load(tmp_path / "student").network.body.fc.weight, whole[4:6])
    assert file_size(tmp_path / "student" / "model.safetensors") < 8 * 4 + 200
