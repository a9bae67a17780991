from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.taps import Layer, layers, propose
from tests.tapped import TASK, Hidden, InPlace, Net, Restless, WithParts, batch, everything, num_hooks


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


def test_layers_lists_what_can_be_tapped():
    net = Hidden()
    net.spare = nn.ModuleList([nn.Linear(2, 2)])
    rows = {row.path: row for row in layers(net, batch(2, 5, 4), TASK)}
    assert isinstance(rows["head"], Layer)
    assert list(rows) == ["attention", "attention.out_proj", "block", "block.0", "block.1", "head", "spare.0"]
    assert rows["attention"].shape == (2, 5, 4)
    assert rows["attention"].note == "first tensor of tuple of 2; choose by :part"
    assert not rows["attention.out_proj"].observable
    assert rows["attention.out_proj"].shape is None
    assert rows["attention.out_proj"].note == "never called, nearest attention"
    assert not rows["block"].observable
    assert rows["block.0"].observable
    assert not rows["spare.0"].observable
    assert rows["head"].parameters == 15
    assert rows["head"].kind == "Linear"
    assert rows["head"].calls == 1
    assert 0 < rows["block.0"].share < 1
    total = rows["attention"].share + rows["block.0"].share + rows["head"].share
    assert total == pytest.approx(1)


def test_layers_notes():
    rows = {row.path: row for row in layers(InPlace(), batch(2, 3, 6, 6), TASK)}
    assert rows["conv"].note == "changed in place afterwards"
    assert rows["relu"].note == ""
    rows = {row.path: row for row in layers(Net(), batch(), TASK)}
    assert rows["layer1.relu"].calls == 2
    assert rows["layer1.relu"].note == "called 2 times: name layer1.relu#1..#2"
    assert rows["layer1"].parameters == sum(p.numel() for p in Net().layer1.parameters())
    rows = {row.path: row for row in layers(WithParts("text"), batch(2, 3), TASK)}
    assert not rows["block"].observable
    assert rows["block"].note == "str of 9: no tensor in it"


def test_tied_parameters_count_once():
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 3))
    net[0][1].weight = net[0][0].weight
    rows = {row.path: row for row in layers(net, batch(2, 4), TASK)}
    assert rows["0"].parameters == 24


def test_layers_and_proposals_leave_the_network_as_it_was():
    net, data = Restless(), batch(2, 3)
    before = everything(net)
    layers(net, data, TASK)
    propose(net, net, data, TASK)
    assert everything(net) == before
    assert net.training
    assert num_hooks(net) == 0


class Graph(nn.Module):
    """Neighbours in a sparse buffer, of which it counts the calls in place."""

    def __init__(self, layout: torch.layout) -> None:
        super().__init__()
        self.register_buffer("neighbours", torch.eye(4).to_sparse(layout=layout))
        self.fc = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.neighbours.mul_(2)
        return self.fc((self.neighbours @ inputs.T).T)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
def test_sparse_buffers_are_put_back(layout):
    net = Graph(layout)
    assert [row.path for row in layers(net, {"inputs": torch.rand(3, 4)}, TASK)] == ["fc"]
    assert torch.equal(net.neighbours.to_dense(), torch.eye(4))
