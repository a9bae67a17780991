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
    ("make", "size", "left"),
    [
        (resnet, 32, 0),
        (lambda: torchvision.models.mobilenet_v2(num_classes=5), 32, 0),
        (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5), 32, 0),
        (lambda: timm.create_model("resnet10t", num_classes=5), 64, 0),
        (lambda: timm.create_model("test_efficientnet", num_classes=5), 64, None),
        (lambda: timm.create_model("test_vit", num_classes=5, img_size=64), 64, 0),
    ],
    ids=["resnet", "mobilenet", "shufflenet", "timm-resnet", "timm-efficientnet", "timm-vit"],
)
def test_all_norms_of_common_networks_are_folded_to_the_same_values(make, size, left):
    network, samples = lived(make()), batch(size)
    with torch.no_grad():
        before, number = network(samples["inputs"]), norms(network)
        folded = fold(network, samples, TASK)
        assert difference(before, network(samples["inputs"])) < 1e-4
    assert norms(network) == number - folded
    if left is not None:
        assert norms(network) == left


@pytest.mark.parametrize("how", ["twice", "around", "view of it", "between"])
def test_what_someone_else_reads_is_left_alone(how):
    network, samples = lived(Block(how)), batch(8)
    assert fold(network, samples, TASK) == 0
    assert norms(network) == 1


def test_plain_pairs_are_folded_and_paths_stay():
    network, samples = lived(Block("plain")), batch(8)
    assert fold(network, samples, TASK) == 1
    assert isinstance(network.norm, nn.Identity)


@pytest.mark.parametrize(("path", "folded"), [("conv", 0), ("norm.input", 0), ("norm", 1), ("conv#1", 0)])
def test_tapped_values_stay(path, folded):
    assert fold(lived(Block("plain")), batch(8), TASK, [path]) == folded


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


def test_it_works_behind_a_preprocessing():
    network = Preprocessed(resnet(), Preprocessing("image", 3, None, (0.5,) * 3, (0.2,) * 3))
    samples = batch()
    with torch.no_grad():
        before = network(samples["inputs"])
        assert fold(network, samples, TASK) == 9
        assert difference(before, network(samples["inputs"])) < 1e-5
