from __future__ import annotations

import torch
from torch import nn

from limbeck.statistics import keep_statistics


class Counting(nn.Module):
    """Keeps a buffer that it replaces, as some layers do, in place of writing into it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, value):
        self.calls = self.calls + 1
        return self.norm(value)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 3), Counting(), nn.Unflatten(1, (1, 3)), nn.InstanceNorm1d(1, track_running_stats=True)
    )


def buffers(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def test_batch_statistics_are_used_and_running_ones_stay_bit_for_bit():
    network, value = net(), torch.randn(8, 4)
    expected = net()(value)
    before, objects = buffers(network), list(network.buffers())
    with keep_statistics(network):
        answer = network(value)
    assert torch.equal(answer, expected)
    assert all(torch.equal(before[name], now) for name, now in network.named_buffers())
    assert all(one is other for one, other in zip(objects, network.buffers(), strict=True))
    assert network.training
    network(value)
    assert not torch.equal(before["1.norm.running_mean"], network[1].norm.running_mean)


def test_a_graph_recorded_before_still_runs_backward():
    network, value = net(), torch.randn(8, 4)
    before = network(value)
    with torch.no_grad(), keep_statistics(network):
        network(value)
    before.sum().backward()
    assert network[0].weight.grad is not None


def test_buffers_come_back_after_an_error():
    network = net()
    before = buffers(network)
    try:
        with keep_statistics(network):
            network(torch.randn(8, 4))
            raise KeyError
    except KeyError:
        pass
    assert all(torch.equal(before[name], now) for name, now in network.named_buffers())


def test_a_shared_buffer_stays_shared_inside():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    network[1].running_mean = network[0].running_mean
    with keep_statistics(network):
        assert network[1].running_mean is network[0].running_mean
        network(torch.randn(4, 2))
    assert network[1].running_mean is network[0].running_mean
    assert network[0].running_mean.eq(0).all()
