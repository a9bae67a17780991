"""pytorch/pytorch#148886, ultralytics/ultralytics#13048: a batch that is frozen at export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck._export.onnx import export_onnx
from limbeck.errors import RunError
from limbeck.models import Preprocessed, Preprocessing

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)


class Flat(nn.Module):
    def forward(self, inputs):
        return inputs.reshape(int(inputs.shape[0]), -1)


class Expanded(nn.Module):
    def forward(self, inputs):
        return inputs.flatten(1) + torch.zeros(int(inputs.shape[0]), 1)


@pytest.mark.parametrize("frozen", [Flat, Expanded])
def test_a_frozen_batch_is_refused_by_module(tmp_path, frozen):
    body = nn.ModuleDict({"flat": frozen(), "fc": nn.Linear(64, 3)})

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = body

        def forward(self, inputs):
            return self.stem["fc"](self.stem["flat"](inputs))

    with pytest.raises(RunError, match=r"frozen batch.*module 'stem\.flat'") as caught:
        export_onnx(Preprocessed(Network(), Preprocessing("image", 1)), tmp_path, torch.rand(2, 1, 8, 8))
    assert caught.value.where.startswith(f"{__file__}:")
    assert list(tmp_path.iterdir()) == []


def test_a_free_batch_is_run_at_one_two_and_seven(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert export_onnx(network, tmp_path, torch.rand(2, 1, 8, 8)).batches == (1, 2, 7)
