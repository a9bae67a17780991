from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.models import build, built_in_names, cifar, vgg, wide
from limbeck.models.blocks import PaddedShortcut
from limbeck.models.shuffle import shuffled


def parameters(network):
    return sum(p.numel() for p in network.parameters())


# Published at 100 classes by the papers that use these networks.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet20", 278_324),
        ("resnet32", 472_756),
        ("resnet56", 861_620),
        ("resnet110", 1_736_564),
        ("resnet8x4", 1_233_540),
        ("resnet32x4", 7_433_860),
        ("wrn16-2", 703_284),
        ("wrn40-1", 569_780),
        ("wrn40-2", 2_255_156),
        ("vgg8", 3_965_028),
        ("vgg13", 9_462_180),
        ("mobilenetv2", 812_836),
        ("shufflenetv1", 949_258),
        ("shufflenetv2", 1_355_528),
    ],
)
def test_cifar_networks_have_the_published_number_of_parameters(name, published):
    assert parameters(build(name, num_classes=100, channels=3, size=32)) == published


def test_stages_of_a_cifar_network():
    network = build("resnet8x4", num_classes=100, channels=3, size=32)
    seen = {}
    for name in ("layer1", "layer2", "layer3"):
        network.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: seen.update({name: tuple(output.shape[1:])})
        )
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 100)
    assert seen == {"layer1": (64, 32, 32), "layer2": (128, 16, 16), "layer3": (256, 8, 8)}
    assert [name for name, _ in network.named_children()] == [
        "conv1",
        "bn1",
        "layer1",
        "layer2",
        "layer3",
        "fc",
    ]


def test_the_small_student_is_a_twentieth_of_its_teacher():
    teacher = parameters(build("resnet-small", num_classes=10, channels=1, size=28))
    student = parameters(build("cnn-tiny", num_classes=10, channels=1, size=28))
    assert (teacher, student) == (1_209_834, 54_298)


#: One of each family.
FAMILIES = [
    "resnet-small",
    "cnn-tiny",
    "resnet8",
    "wrn16-1",
    "vgg8",
    "mobilenetv2",
    "shufflenetv1",
    "shufflenetv2",
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 8)])
def test_pictures_of_any_size_and_colour(name, channels, size):
    network = build(name, num_classes=7, channels=channels, size=size)
    assert network(torch.rand(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("wrn16-2", [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
        ("vgg8", [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)]),
        ("mobilenetv2", [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)]),
        ("shufflenetv1", [(240, 16, 16), (480, 8, 8), (960, 4, 4)]),
        ("shufflenetv2", [(116, 16, 16), (232, 8, 8), (464, 4, 4)]),
    ],
)
def test_stages_of_the_other_families(name, shapes):
    network = build(name, num_classes=10, channels=3, size=32)
    taps = [f"layer{number}" for number in range(1, len(shapes) + 1)]
    seen = {}
    for tap in taps:
        network.get_submodule(tap).register_forward_hook(
            lambda _m, _i, output, tap=tap: seen.update({tap: tuple(output.shape[1:])})
        )
    network(torch.rand(2, 3, 32, 32))
    assert [seen[tap] for tap in taps] == shapes


def test_a_shuffle_takes_the_channels_of_the_groups_in_turn():
    value = torch.arange(6).view(1, 6, 1, 1)
    assert shuffled(value, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffled(value, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_the_shortcut_without_parameters_is_the_picture_between_zeros():
    network = build("resnet20", num_classes=10, channels=3, size=32, options={"shortcut": "padding"})
    assert parameters(network) == 269_722  # as published for CIFAR-10 (He et al. 2015, table 6: 0.27 million)
    value = torch.rand(2, 16, 8, 8)
    found = PaddedShortcut(16, 32, 2)(value)
    assert torch.equal(found[:, 8:24], value[:, :, ::2, ::2])
    assert not found[:, :8].any()
    assert not found[:, 24:].any()


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_overwrites_what_a_layer_returned(name):
    network = build(name, num_classes=3, channels=1, size=28)
    kept = []
    for module in network.modules():
        module.register_forward_hook(lambda _m, _i, output: kept.append((output, output._version)))
    network(torch.rand(2, 1, 28, 28)).sum().backward()
    assert all(output._version == version for output, version in kept)


def test_a_perceptron_takes_rows_and_pictures():
    rows = build("mlp", num_classes=3, channels=14, size=(), options={"widths": [8], "dropout": 0.5})
    assert rows(torch.rand(5, 14)).shape == (5, 3)
    assert parameters(rows) == 14 * 8 + 8 + 8 * 3 + 3
    pictures = build("mlp", num_classes=3, channels=1, size=8)
    assert pictures(torch.rand(5, 1, 8, 8)).shape == (5, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cnn-tiny", {"width": [1]}, "no option 'width'"),
        ("cnn-tiny", {"widths": 16}, "option widths = 16"),
        ("cnn-tiny", {"widths": [16, 32]}, "needed 4 numbers"),
        ("cnn-tiny", {"widths": [16, 32, 0, 8]}, "at least 1"),
        ("resnet20", {"depth": 26}, "no option 'depth'"),
        ("resnet20", {"shortcut": "none"}, "option shortcut = 'none'"),
        ("mobilenetv2", {"width": 0.01}, "at least 0.1"),
        ("mlp", {"dropout": 1.5}, "dropout = 1.5"),
        ("mlp", {"dropout": "a"}, "option dropout = 'a'"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(RequestError, match=message):
        build(name, num_classes=10, channels=1, size=28, options=options)


def test_wrong_sizes_are_refused():
    with pytest.raises(RequestError, match="needed 6 n \\+ 4"):
        wide.wide_resnet(num_classes=10, depth=20, widen=2)
    with pytest.raises(RequestError, match="widen = 0"):
        wide.wide_resnet(num_classes=10, depth=16, widen=0)
    with pytest.raises(RequestError, match="needed 6 n \\+ 2"):
        cifar.cifar_resnet(num_classes=10, depth=21)
    with pytest.raises(RequestError, match="needed one of 8, 11, 13, 16, 19"):
        vgg.vgg(num_classes=10, depth=12)


def test_a_network_for_pictures_refuses_rows():
    with pytest.raises(RequestError, match="for pictures"):
        build("cnn-tiny", num_classes=2, channels=14, size=())


def test_unknown_names_get_near_ones():
    with pytest.raises(RequestError) as caught:
        build("cnn-tinny", num_classes=10, channels=1, size=28)
    assert caught.value.fix.startswith("cnn-tiny")
    with pytest.raises(RequestError, match="no folder"):
        build("runs/absent/student", num_classes=10, channels=1, size=28)
    with pytest.raises(RequestError, match="0 outputs"):
        build("cnn-tiny", num_classes=0, channels=1, size=28)
    with pytest.raises(RequestError, match="lacks a name"):
        build("timm:", num_classes=10, channels=1, size=28)
    assert "resnet20" in built_in_names()


def test_names_are_checked_without_torch():
    program = (
        "import sys; from limbeck.models.registry import check_spec; "
        "assert check_spec('timm:resnet18').source == 'timm'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
