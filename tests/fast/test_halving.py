"""Weights are rounded beforehand where autocast would round them, and to the same values."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from limbeck import Classification
from limbeck._fast.halving import halve
from tests.fast.networks import lived, resnet

TASK = Classification()


def autocast(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return network(inputs).float()


def test_answers_are_those_of_autocast_bit_for_bit():
    for network in (resnet(), lived(torchvision.models.mobilenet_v2(num_classes=5))):
        inputs = torch.rand(4, 3, 32, 32)
        expected = autocast(network, inputs)
        products = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        assert halve(network, {"inputs": inputs}, TASK) == len(products)
        assert all(module.weight.dtype is torch.bfloat16 for module in products)
        assert all(not parameter.requires_grad for module in products for parameter in module.parameters())
        assert torch.equal(autocast(network, inputs), expected)


class Careful(nn.Module):
    """Computes one layer exactly, and uses the weight of another without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.exact, self.read = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [B, 6] to values [B, 6]."""
        value = self.first(rows)
        with torch.autocast("cpu", enabled=False):
            value = self.exact(value.float())
        return value * self.read.weight.sum()


def test_what_autocast_does_not_round_stays():
    network = Careful().eval()
    inputs = torch.rand(4, 6)
    expected = autocast(network, inputs)
    assert halve(network, {"inputs": inputs}, TASK) == 1
    assert network.first.weight.dtype is torch.bfloat16
    assert network.exact.weight.dtype is network.read.weight.dtype is torch.float32
    assert torch.equal(autocast(network, inputs), expected)


def test_double_weights_stay():
    network = nn.Linear(6, 2).double().eval()
    halve(network, {"inputs": torch.rand(4, 6).double()}, TASK)
    assert network.weight.dtype is torch.float64
