"""Norms are folded where one of them alone reads a layer, and nowhere else."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from limbeck import Classification
from limbeck._fast.comparison import difference
from limbeck._fast.folding import fold
from limbeck.models.preprocessing import Preprocessed, Preprocessing
from tests.fast.networks import Block, lived, resnet

TASK = Classification()


def batch(size: int = 32, samples: int = 4) -> dict[str, torch.Tensor]:
    return {"inputs": torch.rand(samples, 3, size, size)}


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (resnet, 32),
        (lambda: torchvision.models.mobilenet_v2(num_classes=5), 32),
        (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5), 32),
        (lambda: timm.create_model("resnet10t", num_classes=5), 64),
        (lambda: timm.create_model("test_efficientnet", num_classes=5), 64),
        (lambda: timm.create_model("test_vit", num_classes=5, img_size=64), 64),
    ],
    ids=["resnet", "mobilenet", "shufflenet", "timm-resnet", "timm-efficientnet", "timm-vit"],
)
def test_all_norms_of_common_networks_are_folded_to_the_same_values(make, size):
    network, samples = lived(make()), batch(size)
    with torch.no_grad():
        before, number = network(samples["inputs"]), norms(network)
        folded = fold(network, samples, TASK)
        assert difference(before, network(samples["inputs"])) < 1e-4
    assert (folded, norms(network)) == (number, 0)


@pytest.mark.parametrize(
    "how", ["twice", "around", "view of it", "between", "changed before", "with its weight", "also returned"]
)
def test_what_someone_else_reads_is_left_alone(how):
    network, samples = lived(Block(how)), batch(8)
    with torch.no_grad():
        before = network(samples["inputs"])
        assert fold(network, samples, TASK) == 0
        assert difference(before, network(samples["inputs"])) == 0
    assert norms(network) == 1


def test_plain_pairs_are_folded_and_paths_stay():
    network, samples = lived(Block("plain")), batch(8)
    assert fold(network, samples, TASK) == 1
    assert isinstance(network.norm, nn.Identity)


@pytest.mark.parametrize(
    ("path", "folded"),
    [("conv", 0), ("norm.input", 0), ("norm", 1), ("conv.input", 1), ("conv#1", 0), ("conv:0", 0)],
)
def test_tapped_values_stay(path, folded):
    assert fold(lived(Block("plain")), batch(8), TASK, [path]) == folded


@pytest.mark.parametrize(
    ("path", "folded"), [("0", 0), ("1.input", 0), ("body.0.0", 0), ("1", 1), ("body.1.0", 1)]
)
def test_values_tapped_around_a_layer_stay(path, folded):
    inner = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()))
    network = lived(Preprocessed(inner, Preprocessing("identity")))
    assert fold(network, batch(8), TASK, [path]) == folded


def test_layers_with_hooks_of_others_are_left_alone():
    network = lived(Block("plain"))
    network.norm.register_forward_hook(lambda module, inputs, output: output * 2)
    assert fold(network, batch(8), TASK) == 0


def test_norms_without_statistics_and_in_subclasses_are_left_alone():
    class Own(nn.BatchNorm2d):
        pass

    for norm in (nn.BatchNorm2d(3, track_running_stats=False), Own(3)):
        network = Block("plain")
        network.norm = norm
        assert fold(lived(network), batch(8), TASK) == 0


def test_linear_and_transposed_layers_are_folded_too():
    linear = lived(nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6)))
    transposed = lived(
        nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(324, 5))
    )
    for network in (linear, transposed):
        samples = batch(8)
        with torch.no_grad():
            before = network(samples["inputs"])
            assert fold(network, samples, TASK) == 1
            assert difference(before, network(samples["inputs"])) < 1e-5


class OfPositions(nn.Module):
    """A norm over the positions [B, L, C] that a linear layer returns, not over its channels."""

    def __init__(self, features: int, positions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(6, features)
        self.norm = nn.BatchNorm1d(positions)

    def forward(self, rows):
        return self.norm(self.linear(rows)).flatten(1)


@pytest.mark.parametrize(("features", "positions"), [(5, 5), (7, 5), (7, 1)])
def test_norms_over_another_dimension_are_left_alone(features, positions):
    samples = {"inputs": torch.rand(4, positions, 6)}
    assert fold(lived(OfPositions(features, positions)), samples, TASK) == 0


def test_what_cannot_be_folded_exactly_by_torch_is_left_alone():
    grouped = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4), nn.Flatten())
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
    assert fold(lived(grouped), {"inputs": torch.rand(2, 4, 3, 3)}, TASK) == 0
    assert fold(lived(plain), {"inputs": torch.rand(2, 4)}, TASK) == 0
    convolution = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Flatten())
    assert fold(lived(convolution), batch(4), TASK) == 1


def test_a_layer_that_the_network_holds_twice_is_folded_everywhere():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.again, self.listed = self.first, [self.first]
            self.norm = nn.BatchNorm2d(4)
            self.same = self.norm

        def forward(self, pixels):
            return self.same(self.listed[0](pixels)).flatten(1)

    network, samples = lived(Twice()), batch(8)
    with torch.no_grad():
        before = network(samples["inputs"])
        assert fold(network, samples, TASK) == 1
        assert difference(before, network(samples["inputs"])) < 1e-5
    assert norms(network) == 0


def test_a_frozen_norm_of_a_library_is_folded():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), torchvision.ops.FrozenBatchNorm2d(4), nn.Flatten()).eval()
    torch.nn.init.uniform_(network[1].running_mean)
    with torch.no_grad():
        samples = batch(8)
        before = network(samples["inputs"])
        assert fold(network, samples, TASK) == 1
        assert difference(before, network(samples["inputs"])) < 1e-5


def test_sparse_values_in_a_network_pass():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

        def forward(self, rows):
            return torch.sparse.mm(torch.eye(len(rows)).to_sparse(), self.norm(self.linear(rows)))

    assert fold(lived(Graph()), {"inputs": torch.rand(4, 6)}, TASK) == 1


def test_an_activation_inside_a_norm_keeps_its_path():
    network = lived(timm.create_model("test_efficientnet", num_classes=5))
    inside = [name for name, module in network.named_modules() if name.endswith(".act")]
    fold(network, batch(64), TASK)
    names = dict(network.named_modules())
    assert inside
    assert set(inside) <= set(names)


def test_it_works_behind_a_preprocessing():
    network = Preprocessed(resnet(), Preprocessing("image", 3, None, (0.5,) * 3, (0.2,) * 3))
    samples = batch()
    with torch.no_grad():
        before = network(samples["inputs"])
        assert fold(network, samples, TASK) == 9
        assert difference(before, network(samples["inputs"])) < 1e-5
