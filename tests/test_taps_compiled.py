from __future__ import annotations

import logging
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from limbeck.taps import layers, untapped
from tests.tapped import TASK, Checkpointed, InPlace, Net, WithParts, batch, gradients, num_hooks, taps


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    "path", ["layer1", "module.layer1", "_orig_mod.layer1", "module._orig_mod.layer1", "body.layer1"]
)
def test_wrapper_prefixes_are_transparent(path):
    class Preprocessed(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.preprocessing = nn.Identity()
            self.body = body

        def forward(self, x):
            return self.body(self.preprocessing(x))

    class Parallel(nn.Module):  # the names that DistributedDataParallel and its like give
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *args):
            return self.module(*args)

    net, data = Net().eval(), batch()
    expected = taps(net, "layer1")(data)["layer1"]
    wrapped = [net, Preprocessed(net), Parallel(net), Parallel(Preprocessed(net)), Parallel(Parallel(net))]
    wrapped += [
        torch.compile(Preprocessed(net), backend="eager"),
        Parallel(torch.compile(net, backend="eager")),
    ]
    for model in wrapped:
        tapped = taps(model, path)
        assert torch.equal(tapped(data)[path], expected)
        assert [layer.path for layer in layers(model, data, TASK)][-9:] == [
            layer.path for layer in layers(net, data, TASK)
        ][-9:]
        tapped.remove()


def test_real_names_win_over_transparent_ones():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 4)
            self.fpn = nn.Linear(4, 3)

        def forward(self, x):
            return self.fpn(self.body(x))

    net, data = nn.Sequential(OrderedDict(backbone=Backbone(), module=nn.Linear(3, 3))), batch(2, 3)
    assert taps(net, "backbone.body").dry(data)["backbone.body"] == (2, 4)
    assert taps(net, "module").dry(data)["module"] == (2, 3)


def test_checkpoint_wrapper_inside():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    net, data = Net(), batch()
    net.layer1 = checkpoint_wrapper(net.layer1)
    record = taps(net, "layer1", "layer1.conv", trainable=True)(data)
    assert record["layer1.conv"].requires_grad
    assert "layer1.conv" in {layer.path for layer in layers(net, data, TASK)}


@pytest.mark.parametrize("way", ["in place", "wrapped"])
def test_compiled_records_equal_eager_ones(way):
    net = Net()
    net.layer2[1].p = 0.0
    paths = ["layer1", "layer1.relu#1", "fc.input"]
    data = [batch() for _ in range(4)]
    eager = [gradients(net, taps(net, *paths, trainable=True), each, paths) for each in data]
    counter = CompileCounterWithBackend("aot_eager")
    if way == "in place":
        net.compile(fullgraph=True, backend=counter)
        model = net
    else:
        model = torch.compile(net, fullgraph=True, backend=counter)
    tapped = taps(model, *paths, trainable=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = [gradients(net, tapped, each, paths) for each in data]
    assert counter.frame_count == 1
    for one, other in zip(eager, compiled, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b)
    model(data[0]["inputs"])
    assert tapped._state.values == {}
    record = tapped(data[0], output=False)  # runs through, and says nothing all the same
    assert record.output is None
    assert set(record.layers) == set(paths)
    with torch.no_grad():
        tapped.model.eval()
        assert torch.equal(tapped(data[1])["layer1"], taps(untapped(net), "layer1")(data[1])["layer1"])


def test_compiled_by_inductor():
    net, data = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), batch(2, 4)
    expected = taps(net, "1")(data)["1"]
    net.compile(fullgraph=True)
    torch.testing.assert_close(taps(net, "1", trainable=True)(data)["1"], expected)


def test_compiled_with_checkpointing():
    net, paths = Checkpointed(), ["a.0", "a.1", "b.2"]
    net.b[1].p = 0.0
    data = [batch(2, 4) for _ in range(3)]
    eager = [gradients(net, taps(net, *paths, trainable=True), each, paths) for each in data]
    counter = CompileCounterWithBackend("aot_eager")
    net.compile(fullgraph=True, backend=counter)
    tapped = taps(net, *paths, trainable=True)
    compiled = [gradients(net, tapped, each, paths) for each in data]
    assert counter.frame_count == 1
    assert not torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint
    for one, other in zip(eager, compiled, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b)


def test_compiled_with_parts_copies_and_inputs():
    net, data = WithParts("dict"), batch(2, 3)
    net.compile(fullgraph=True, backend="aot_eager")
    record = taps(net, "block", "block:weights", "head.input")(data)
    assert torch.equal(record["block:weights"], data["inputs"] * 2)
    assert torch.equal(record["head.input"], data["inputs"])
    net, data = InPlace(), batch(2, 3, 6, 6)
    expected = taps(net, "conv", "relu", overwritten="copy")(data)
    net.compile(fullgraph=True, backend="aot_eager")
    record = taps(net, "conv", "relu", trainable=True, overwritten="copy")(data)
    for path in ("conv", "relu"):
        torch.testing.assert_close(record[path], expected[path])


def test_taps_placed_after_the_first_compiled_call(caplog):
    net, data = Net().eval(), batch()
    expected = taps(net, "layer1")(data)["layer1"]
    net.compile(fullgraph=True, backend="aot_eager")
    net(data["inputs"])
    with caplog.at_level(logging.WARNING, logger="limbeck"):
        tapped = taps(net, "layer1")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("limbeck")]
    assert len(said) == 1
    assert "compiled anew" in said[0]
    torch.testing.assert_close(tapped(data)["layer1"], expected)
    two = taps(net, "layer1", "fc.input")
    tapped.remove()
    torch.testing.assert_close(two(data)["layer1"], expected)
    net(data["inputs"])
    two.remove()
    assert num_hooks(net) == 0
    net(data["inputs"])
