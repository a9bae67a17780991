"""M6, meta-pytorch/captum#156, pytorch/pytorch#95617: a layer whose value an in-place ReLU overwrites."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.taps import Taps, layers, propose
from limbeck.task import Classification

TASK = Classification(4)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())


BATCH = {"inputs": torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(1))}


def test_refused_with_the_fix(network):
    with pytest.raises(RequestError, match="changed in place") as caught:
        Taps(network, ["0"], task=TASK, trainable=True).dry(BATCH)
    assert caught.value.near == ("1",)
    assert 'overwritten="copy"' in str(caught.value.fix)
    rows = {row.path: row.note for row in layers(network, BATCH, TASK)}
    assert rows["0"] == "changed in place afterwards"
    assert propose(network, network, BATCH, TASK)["student"] == ["1"]


def test_copied_value_is_what_the_layer_returned_and_its_gradient_right(network):
    tapped = Taps(network, ["0"], task=TASK, trainable=True, overwritten="copy")
    record = tapped(BATCH)
    returned = network[0](BATCH["inputs"])
    assert torch.equal(record["0"], returned)
    assert (record["0"] < 0).any()
    (gradient,) = torch.autograd.grad(record["0"].pow(3).sum() + record.output.sum(), network[0].weight)
    output = returned.clamp(min=0).mean((2, 3))
    (expected,) = torch.autograd.grad(returned.pow(3).sum() + output.sum(), network[0].weight)
    torch.testing.assert_close(gradient, expected)


def test_the_same_value_whether_the_forward_runs_through_or_stops(network):
    """A cache is written by forwards that stop after the last value; a live teacher may run through."""
    for overwritten, path in (("copy", "0"), ("refuse", "1")):
        tapped = Taps(network.eval(), [path], task=TASK, trainable=False, overwritten=overwritten)
        with torch.no_grad():
            live, stored = tapped(BATCH)[path], tapped(BATCH, output=False)[path]
        assert torch.equal(live, stored)
