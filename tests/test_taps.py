from __future__ import annotations

import copy
import gc
import logging
import pickle
import random
import weakref
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from limbeck.errors import RequestError
from limbeck.taps import Layer, Taps, layers, propose, untapped
from limbeck.task import Classification

TASK = Classification(3)


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


def batch(*shape: int) -> dict[str, Tensor]:
    return {"inputs": torch.randn(*(shape or (4, 3, 8, 8)))}


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.relu(self.norm(self.conv(x)))))


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1)
        self.layer1 = Block(width, width)
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2), nn.Dropout(0.5))
        self.fc = nn.Linear(2 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


def taps(model: nn.Module, *paths: str, trainable: bool = False, **options) -> Taps:
    return Taps(model, paths, task=TASK, trainable=trainable, **options)


def num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# --- what is recorded


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


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Parts(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        y, z = self.fc(x), x * 2
        return {
            "tuple": (y, (z, y + 1)),
            "dict": {"hidden": y, "weights": z},
            "named": Pair(y, z),
            "none first": (None, z),
            "text": "no tensor",
            "texts": {"a": "x", "b": None},
        }[self.kind]


class WithParts(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.block = Parts(kind)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        self.block(x)
        return self.head(x)


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


# --- hooks: placed once, removable, silent outside the call


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


# --- names


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


def test_overwritten_option_is_checked():
    with pytest.raises(RequestError, match="refuse"):
        taps(Net(), "layer1", overwritten="clone")


# --- stopping early


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


# --- the dry pass


class Restless(nn.Module):
    """Changes everything that a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("lazy", None)
        self.register_buffer("replaced", torch.tensor([float("nan")]))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.data.add_(1)
        self.lazy = x.mean()
        self.replaced = self.replaced + 1
        random.random()
        np.random.rand()
        return self.drop(self.norm(self.fc(x)))


def everything(net: nn.Module) -> list[object]:
    """All bits of a network and of the random states."""
    tensors = {name: value.numpy().tobytes() for name, value in net.state_dict().items()}
    states = [random.getstate(), torch.get_rng_state().numpy().tobytes()]
    return [tensors, *states, *(str(part) for part in np.random.get_state())]


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_dry_leaves_everything_as_it_was(trainable, training):
    net, data = Restless().train(training), batch(1, 3)
    net.norm.eval()
    net.fc.weight.requires_grad_(False)
    net.fc.bias.grad = torch.ones(3)
    before = everything(net)
    modes = [module.training for module in net.modules()]
    shapes = taps(net, "fc", "drop", trainable=trainable).dry(data)
    assert shapes == {"fc": torch.Size([1, 3]), "drop": torch.Size([1, 3])}
    assert everything(net) == before
    assert modes == [module.training for module in net.modules()]
    assert not net.fc.weight.requires_grad
    assert net.fc.bias.requires_grad
    assert torch.equal(net.fc.bias.grad, torch.ones(3))
    assert net.fc.weight.grad is None
    assert net.lazy is None
    assert torch.is_grad_enabled()


def test_dry_restores_after_a_failing_forward():
    net = Restless()
    with pytest.raises(RuntimeError):
        taps(net, "fc", trainable=True).dry(batch(2, 7))
    assert net.training
    assert net.lazy is None
    assert float(net.seen.sum()) == 0
    assert torch.is_grad_enabled()


def test_dry_takes_any_batch_and_works_in_inference_mode():
    net = Net()
    assert taps(net, "layer1").dry((torch.randn(2, 3, 8, 8), torch.zeros(2).long()))["layer1"] == (2, 4, 8, 8)
    with torch.inference_mode():
        assert taps(net.eval(), "layer1")(batch())["layer1"].shape == (4, 4, 8, 8)


# --- gradient in training


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.a = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.b = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh())
        self.head = nn.Linear(4, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.a, x, use_reentrant=self.reentrant)
        return self.head(checkpoint(self.b, x, use_reentrant=self.reentrant))


# torch says so wherever a reentrant part runs without gradient
REENTRANT = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")


def gradients(net: nn.Module, tapped: Taps, data: dict[str, Tensor], paths: list[str]) -> list[Tensor]:
    net.zero_grad()
    torch.manual_seed(1)
    record = tapped(data)
    (record.output.sum() + sum(record[path].square().sum() for path in paths)).backward()
    assert tapped._state.values == {}
    assert tapped._state.calls == {}
    return [
        record.output.detach(),
        *(record[path].detach() for path in paths),
        *(p.grad for p in net.parameters()),
    ]


def test_checkpointing_records_the_forward_and_not_the_recomputation():
    net, data, paths = Checkpointed(), batch(2, 4), ["a.0", "a.1", "b.2", "a"]
    checkpointed = gradients(net, taps(net, *paths, trainable=True), data, paths)
    plain = Checkpointed()
    plain.load_state_dict(net.state_dict())
    plain.forward = lambda x: plain.head(plain.b(plain.a(plain.stem(x))))
    for one, other in zip(
        checkpointed, gradients(plain, taps(plain, *paths, trainable=True), data, paths), strict=True
    ):
        assert torch.equal(one, other)


@REENTRANT
def test_reentrant_checkpointing_is_refused():
    net, data = Checkpointed(reentrant=True), batch(2, 4)
    with pytest.raises(RequestError, match="reentrant") as caught:
        taps(net, "a.1", trainable=True).dry(data)
    assert "use_reentrant=False" in str(caught.value)
    with pytest.raises(RequestError, match="gradient"):
        taps(net, "a.1", trainable=True)(data)
    tapped = taps(net, "a", trainable=True)  # what leaves the checkpointed part has gradient
    tapped(data)["a"].sum().backward()
    assert taps(net, "a.1")(data)["a.1"].shape == (2, 4)  # no gradient wanted


@REENTRANT
def test_reentrant_checkpointing_switched_on_later_is_refused_in_the_call():
    net, data = Checkpointed(), batch(2, 4)
    tapped = taps(net, "a.1", trainable=True)
    tapped.dry(data)
    net.reentrant = True
    with pytest.raises(RequestError, match=r"has no gradient in training, though .* trains"):
        tapped(data)
    net.eval()
    tapped(data)
    net.train()
    with torch.no_grad():
        tapped(data)


def test_frozen_parts_are_no_fault():
    net, data = Net(), batch()
    net.stem.requires_grad_(False)
    tapped = taps(net, "stem", "layer1", trainable=True)
    tapped.dry(data)
    record = tapped(data)
    assert not record["stem"].requires_grad
    assert record["layer1"].requires_grad
    net.layer1.requires_grad_(False)
    assert not tapped(data)["layer1"].requires_grad
    net.stem.requires_grad_(True)
    assert tapped(data)["stem"].requires_grad
    net.requires_grad_(False)
    fresh = taps(net, "fc", trainable=True)
    assert not fresh(data)["fc"].requires_grad  # first call checks itself, on a wholly frozen network
    assert not any(parameter.requires_grad for parameter in net.parameters())


class Cuts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.detached = nn.Identity()
        self.quiet = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.detached(self.embed(ids).mean(1).detach())
        with torch.no_grad():
            x = self.quiet(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("embed.input", "int64"),
        ("detached", "detached"),
        ("quiet", "gradient off"),
        ("embed", None),
        ("head", None),
    ],
)
def test_values_without_gradient(path, reason):
    data = {"inputs": torch.randint(5, (2, 3))}
    tapped = taps(Cuts(), path, trainable=True)
    if reason is None:
        assert tapped(data)[path].requires_grad
        return
    with pytest.raises(RequestError, match=reason):
        tapped.dry(data)
    assert taps(Cuts(), path)(data)[path] is not None


# --- changed in place


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.other = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.relu(self.conv(x)))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("path", ["conv", "relu.input"])
def test_in_place_change_is_refused_with_the_fix(path):
    with pytest.raises(RequestError) as caught:
        taps(InPlace(), path, trainable=True).dry(batch(2, 3, 6, 6))
    assert caught.value.near == ("relu",)
    assert 'overwritten="copy"' in str(caught.value)
    with pytest.raises(RequestError):
        taps(InPlace(), path)(batch(2, 3, 6, 6))


def test_in_place_change_is_copied_only_where_needed():
    net, data = InPlace(), batch(2, 3, 6, 6)
    tapped = taps(net, "conv", "relu", "other", trainable=True, overwritten="copy")
    assert set(tapped.dry(data)) == {"conv", "relu", "other"}
    assert [want.copy for want in tapped._wants.values()] == [True, False, False]
    tapped.dry(data)  # once more: the copy itself is not overwritten
    record = tapped(data)
    assert torch.equal(record["conv"], net.conv(data["inputs"]))
    assert (record["conv"] < 0).any()
    (record["conv"].square().sum() + record["relu"].sum() + record.output.sum()).backward()
    reference = copy.deepcopy(net)
    reference.zero_grad()
    conv = reference.conv(data["inputs"])
    relu = conv.clamp(min=0)
    output = reference.fc(reference.other(relu).mean((2, 3)))
    (conv.square().sum() + relu.sum() + output.sum()).backward()
    for one, other in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_in_place_addition_and_views():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)

        def forward(self, x):
            x = self.a(x)
            x.view(-1).mul_(2)
            return self.b(x)

    with pytest.raises(RequestError, match="changed in place"):
        taps(Adds(), "a").dry(batch(2, 3))
    assert taps(Adds(), "b").dry(batch(2, 3))


# --- paths that never fire


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x)[0]
        return self.head(self.block.forward(x).mean(1))


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


# --- wrappers


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


# --- compiled


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


# --- layers


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
