from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from tests.tapped import REENTRANT, Checkpointed, InPlace, Net, Restless, batch, everything, gradients, taps


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


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
    tapped = taps(net, "conv", "relu.input", "relu", "other", trainable=True, overwritten="copy")
    assert set(tapped.dry(data)) == {"conv", "relu.input", "relu", "other"}
    assert [want.copy for want in tapped._wants.values()] == [True, True, False, False]
    tapped.dry(data)  # once more: the copy itself is not overwritten
    record = tapped(data)
    assert torch.equal(record["conv"], net.conv(data["inputs"]))
    assert torch.equal(record["conv"], record["relu.input"])
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
