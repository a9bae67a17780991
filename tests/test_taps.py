from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import OrderedDict

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.taps import Taps, untapped
from tests.tapped import TASK, Hidden, Net, WithParts, batch, num_hooks, taps


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


def test_values_are_what_layers_return_and_take():
    net, data = Net().eval(), batch()
    record = taps(net, "layer1", "layer2.0.conv", "fc.input", "fc", "layer1.relu#2")(data)
    stem = net.layer1(net.stem(data["inputs"]))
    assert list(record.layers) == ["layer1", "layer2.0.conv", "fc.input", "fc", "layer1.relu#2"]
    assert torch.equal(record["layer1"], stem)
    assert torch.equal(record["layer1.relu#2"], stem)
    assert torch.equal(record["layer2.0.conv"], net.layer2[0].conv(stem))
    assert torch.equal(record["fc.input"], net.layer2(stem).mean((2, 3)))
    assert torch.equal(record.output, record["fc"])
    assert torch.equal(record.output, net(data["inputs"]))


def test_gradient_flows_through_recorded_values():
    net, data = Net(), batch()
    taps(net, "layer1", trainable=True)(data)["layer1"].sum().backward()
    assert net.stem.weight.grad is not None
    assert net.fc.weight.grad is None


def test_input_given_by_keyword_and_parts_of_inputs():
    class Inner(nn.Module):
        def forward(self, a, *, scale):
            return a * scale

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return self.inner(x, scale=x + 1)

    data = batch(2, 3)
    record = taps(Outer(), "inner.input", "inner.input:0", "inner.input:scale")(data)
    assert torch.equal(record["inner.input"], data["inputs"])
    assert torch.equal(record["inner.input:0"], data["inputs"])
    assert torch.equal(record["inner.input:scale"], data["inputs"] + 1)


def test_module_named_input_wins():
    net = nn.Sequential(
        OrderedDict(fc=nn.Sequential(OrderedDict(input=nn.Linear(3, 3), out=nn.Linear(3, 3))))
    )
    data = batch(2, 3)
    assert torch.equal(taps(net, "fc.input")(data)["fc.input"], net.fc.input(data["inputs"]))
    record = taps(net, "fc.input.input", "fc.out.input")(data)
    assert torch.equal(record["fc.input.input"], data["inputs"])
    assert torch.equal(record["fc.out.input"], net.fc.input(data["inputs"]))


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        ("tuple", "block", "y"),
        ("tuple", "block:0", "y"),
        ("tuple", "block:1", "z"),
        ("tuple", "block:1:0", "z"),
        ("tuple", "block#1:1:0", "z"),
        ("dict", "block", "y"),
        ("dict", "block:weights", "z"),
        ("named", "block:1", "z"),
        ("named", "block:second", "z"),
        ("none first", "block", "z"),
    ],
)
def test_parts(kind, path, expected):
    net, data = WithParts(kind), batch(2, 3)
    value = taps(net, path)(data)[path]
    assert torch.equal(value, net.block.fc(data["inputs"]) if expected == "y" else data["inputs"] * 2)


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        ("tuple", "block:2", ["has no part '2'", "its parts are 0, 1", "block:1"]),
        ("dict", "block:hiden", ["has no part 'hiden'", "hidden, weights", "block:hidden"]),
        ("text", "block", ["gives str, which holds no tensor"]),
        ("texts", "block", ["gives dict, which holds no tensor", "block:a"]),
        ("none first", "block:0", ["gives NoneType"]),
    ],
)
def test_parts_refused(kind, path, words):
    with pytest.raises(RequestError) as caught:
        taps(WithParts(kind), path).dry(batch(2, 3))
    for word in words:
        assert word in str(caught.value)


def test_no_paths_is_a_plain_call():
    net, data = Net().eval(), batch()
    none = taps(net)
    assert torch.equal(none(data).output, net(data["inputs"]))
    assert none(data, output=False).output is None
    assert none.dry(data) == {}
    assert num_hooks(net) == 0


def test_hooks_are_placed_once_and_removed():
    net, data = Net(), batch()
    tapped = taps(net, "layer1", "fc.input", "layer1.relu#1", "layer1.relu#2", trainable=True)
    assert num_hooks(net) == 3
    for _ in range(3):
        tapped(data)
    assert num_hooks(net) == 3
    tapped.remove()
    tapped.remove()
    assert num_hooks(net) == 0
    assert not any(m._forward_hooks_with_kwargs or m._forward_pre_hooks_with_kwargs for m in net.modules())
    with pytest.raises(RequestError, match="removed"):
        tapped(data)


def test_two_taps_on_one_model_do_not_disturb_each_other():
    net, data = Net().eval(), batch()
    one, two = taps(net, "layer1", "fc.input"), taps(net, "layer1")
    first = one(data)
    assert list(two(data).layers) == ["layer1"]
    two.remove()
    again = one(data)
    assert list(again.layers) == ["layer1", "fc.input"]
    assert torch.equal(first["layer1"], again["layer1"])
    assert not one._state.values
    assert not one._state.calls


def test_plain_call_records_nothing_and_nothing_is_kept():
    net, data = Net(), batch()
    tapped = taps(net, "layer1", trainable=True)
    record = tapped(data)
    reference = weakref.ref(record.layers["layer1"])
    net(data["inputs"])
    assert tapped._state.values == {}
    assert not tapped._state.active
    del record
    gc.collect()
    assert reference() is None


def test_values_are_released_when_the_model_fails():
    class Fails(Net):
        def forward(self, x):
            y = super().forward(x)
            if self.fail:
                raise KeyError("inside")
            return y

    net = Fails().eval()
    net.fail = False
    tapped = taps(net, "layer1")
    tapped.dry(batch())
    net.fail = True
    with pytest.raises(KeyError):
        tapped(batch())
    assert not tapped._state.active
    assert tapped._state.values == {}


def test_hooks_go_with_the_taps_that_nobody_holds():
    net = Net()
    tapped = taps(net, "layer1", "fc.input")
    assert num_hooks(net) == 2
    del tapped
    gc.collect()
    assert num_hooks(net) == 0


def test_untapped_copy_has_no_hooks_of_ours_and_equals_the_model():
    net, data = Net().eval(), batch()
    seen = []
    net.fc.register_forward_hook(lambda *_: seen.append(1))
    tapped = taps(net, "layer1", "fc.input", "fc")
    bare = untapped(torch.compile(net, backend="eager"))
    assert type(bare) is Net
    assert bare.fc.weight is not net.fc.weight
    assert num_hooks(bare) == 1  # the user's own
    assert torch.equal(bare(data["inputs"]), net(data["inputs"]))
    assert len(seen) == 2
    assert list(tapped(data).layers) == ["layer1", "fc.input", "fc"]


def test_untapped_copies_what_a_module_keeps_of_its_last_forward():
    class Keeps(Net):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    net = Keeps()
    net(batch()["inputs"])
    assert torch.equal(untapped(net).last, net.last)


def test_copies_and_pickles_of_a_tapped_model_stay_silent():
    net, data = Net().eval(), batch()
    tapped = taps(net, "layer1")
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(data["inputs"]), net(data["inputs"]))
        assert num_hooks(untapped(other)) == 0
    assert tapped._state.values == {}
    both = copy.deepcopy({"net": net, "taps": tapped})  # as a method with its taps is copied
    assert torch.equal(both["taps"](data)["layer1"], tapped(data)["layer1"])
    assert both["taps"].model is both["net"]


@pytest.mark.parametrize("path", ["layer3", "layr1", "fc.weight", "layer1.reluu"])
def test_unknown_names_are_refused_with_the_nearest(path):
    with pytest.raises(RequestError) as caught:
        taps(Net(), path)
    assert caught.value.near
    assert "Net has no layer" in str(caught.value)


@pytest.mark.parametrize("path", ["", "layer1#0", "layer1#x", "layer1:", ":0", "layer1#1#2"])
def test_grammar(path):
    with pytest.raises(RequestError, match="not of the form"):
        taps(Net(), path)


def test_calls_are_named():
    net = Net().eval()
    with pytest.raises(RequestError) as caught:
        taps(net, "layer1.relu").dry(batch())
    assert caught.value.near == ("layer1.relu#1", "layer1.relu#2")
    with pytest.raises(RequestError) as caught:
        taps(net, "layer1.relu")(batch(), output=False)  # also where the forward would stop after the first
    assert "called 2 times in one forward" in str(caught.value)
    with pytest.raises(RequestError, match="called 2 times only"):
        taps(net, "layer1.relu#3")(batch())
    record = taps(net, "layer1.relu.input#2", "layer1.conv#1")(batch())
    assert set(record.layers) == {"layer1.relu.input#2", "layer1.conv#1"}


def test_one_string_is_no_list_of_paths():
    with pytest.raises(RequestError, match="needed a list"):
        Taps(Net(), "layer1", task=TASK, trainable=False)


def test_overwritten_option_is_checked():
    with pytest.raises(RequestError, match="refuse"):
        taps(Net(), "layer1", overwritten="clone")


def test_forward_stops_after_the_last_value():
    net, data = Net().eval(), batch()
    ran = []
    for name in ("stem", "layer1", "layer2", "fc"):
        net.get_submodule(name).register_forward_pre_hook(lambda m, i, name=name: ran.append(name))
    for paths, expected in ((["stem"], ["stem"]), (["layer2.input", "stem"], ["stem", "layer1", "layer2"])):
        tapped = taps(net, *paths)
        tapped.dry(data)
        ran.clear()
        record = tapped(data, output=False)
        assert record.output is None
        assert list(record.layers) == paths
        assert ran == expected
    tapped = taps(net, "fc.input")
    full = tapped(data)
    ran.clear()
    assert torch.equal(tapped(data, output=False)["fc.input"], full["fc.input"])
    assert full.output is not None
    assert ran == ["stem", "layer1", "layer2", "fc"]


def test_stopping_passes_through_a_model_that_catches_exceptions():
    class Catches(Net):
        def forward(self, x):
            try:
                return super().forward(x)
            except Exception:  # noqa: BLE001 - a model may do so
                return x

    net, data = Catches().eval(), batch()
    tapped = taps(net, "layer1")
    assert torch.equal(tapped(data, output=False)["layer1"], tapped(data)["layer1"])


@pytest.mark.parametrize(("path", "near"), [("attention.out_proj", "attention"), ("block", "block.0")])
@pytest.mark.parametrize("trainable", [True, False])
def test_path_that_never_fires_is_refused_with_the_nearest(path, near, trainable):
    with pytest.raises(RequestError, match="never called") as caught:
        taps(Hidden(), path, trainable=trainable).dry(batch(2, 5, 4))
    assert near in caught.value.near


def test_path_that_stops_firing_is_refused_in_the_call():
    class Sometimes(Net):
        def forward(self, x):
            return super().forward(x) if x.mean() < 5 else self.fc(x.mean((2, 3)).repeat(1, 3)[:, :8])

    net = Sometimes().eval()
    tapped = taps(net, "layer1")
    tapped(batch())
    with pytest.raises(RequestError, match="not called for this batch"):
        tapped({"inputs": batch()["inputs"] + 10})
