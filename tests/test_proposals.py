from __future__ import annotations

import itertools
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.taps import Taps, propose
from limbeck.task import Classification, Tokens

timm = pytest.importorskip("timm")
TASK = Classification(3)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def network(name: str, **options) -> nn.Module:
    return timm.create_model(name, pretrained=False, num_classes=3, **options)


def images(size: int, channels: int = 3) -> dict[str, Tensor]:
    return {"inputs": torch.rand(3, channels, size, size), "targets": torch.tensor([0, 1, 2])}


def check(
    student: nn.Module, teacher: nn.Module, batch, expected: tuple[list[str], list[str]], task=TASK
) -> None:
    """The proposal is as expected, and both sides can be tapped: fires, has gradient, is not overwritten."""
    proposed = propose(student, teacher, batch, task)
    assert proposed == {"student": expected[0], "teacher": expected[1]}
    assert len(Taps(student, proposed["student"], task=task, trainable=True).dry(batch)) == len(expected[0])
    assert len(Taps(teacher, proposed["teacher"], task=task, trainable=False).dry(batch)) == len(expected[1])


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, inplace: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.relu = nn.ReLU(inplace=inplace)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.conv1(x)))
        y += self.shortcut(x)
        return self.relu(y)


class CifarResNet(nn.Module):
    def __init__(self, width: int, channels: int = 3, inplace: bool = True, blocks: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=inplace)
        for stage in (1, 2, 3):
            first = Residual(
                width * max(1, 2 ** (stage - 2)), width * 2 ** (stage - 1), min(stage, 2), inplace
            )
            more = [
                Residual(width * 2 ** (stage - 1), width * 2 ** (stage - 1), 1, inplace)
                for _ in range(blocks - 1)
            ]
            self.add_module(f"layer{stage}", nn.Sequential(first, *more))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.pool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))


LAYERS = ["layer1", "layer2", "layer3"]


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("inplace", [True, False])
def test_cifar_resnets(size, channels, inplace):
    student, teacher = CifarResNet(2, channels, inplace), CifarResNet(4, channels, inplace, blocks=2)
    check(student, teacher, images(size, channels), (LAYERS, LAYERS))


def test_resnet_to_vit():
    check(
        network("resnet18"),
        network("vit_tiny_patch16_224"),
        images(224),
        (["layer1", "layer2", "layer3", "layer4"], ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenetv3_small_050", ["blocks.0", "blocks.1", "blocks.3", "blocks.4"]),
        ("mobilenetv2_050", ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]),
    ],
)
def test_vit_and_mobilenet(name, expected):
    vit = network("vit_tiny_patch16_224", depth=6, embed_dim=48)
    check(vit, network(name), images(224), (["blocks.0", "blocks.2", "blocks.3", "blocks.5"], expected))


def test_mixer_to_resnet():
    check(
        network("mixer_s32_224"),
        network("resnet18"),
        images(224),
        (["blocks.1", "blocks.3", "blocks.5", "blocks.7"], ["layer1", "layer2", "layer3", "layer4"]),
    )


def test_the_deepest_resolutions_where_counts_differ():
    proposed = propose(CifarResNet(2), network("resnet18"), images(64), TASK)
    assert proposed == {"student": LAYERS, "teacher": ["layer2", "layer3", "layer4"]}
    at_32 = propose(network("resnet18"), CifarResNet(2), images(32), TASK)  # layer4 is one pixel
    assert at_32 == {"student": LAYERS, "teacher": LAYERS}


def test_small_and_large_vit():
    small, large = (network("vit_tiny_patch16_224", depth=depth, embed_dim=48) for depth in (3, 6))
    check(
        small,
        large,
        images(224),
        (["blocks.0", "blocks.1", "blocks.2"], ["blocks.1", "blocks.3", "blocks.5"]),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("densenet121", [f"features.denseblock{i}" for i in (1, 2, 3, 4)]),
        ("convnext_atto", [f"stages.{i}" for i in range(4)]),
        ("regnetx_002", ["s1", "s2", "s3", "s4"]),
        ("ghostnet_050", ["blocks.2", "blocks.4", "blocks.6", "blocks.8"]),
        ("mobilevit_xxs", [f"stages.{i}" for i in (1, 2, 3, 4)]),
    ],
)
def test_stages_by_their_names(name, expected):
    assert propose(network("resnet18"), network(name), images(160), TASK)["teacher"] == expected


def test_plain_convolutional_network_and_vgg():
    tiny = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(1, 4, 3, 1, 1),
                nn.ReLU(True),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 8, 3, 1, 1),
                nn.ReLU(True),
            ),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(8, 3),
        )
    )
    check(tiny, tiny, images(28, 1), (["features.1", "features.4"], ["features.1", "features.4"]))
    vgg = propose(network("vgg11_bn"), CifarResNet(2), images(64), TASK)["student"]
    assert vgg == ["features.20", "features.27", "features.28"]  # 8, 4 and 2 pixels


def test_networks_of_equal_convolutional_blocks():
    class Plus(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return x + self.b(self.a(x))

    net = nn.Sequential(
        nn.Conv2d(3, 4, 4, 4), *[Plus() for _ in range(8)], nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    check(net, net, images(32), (["2", "4", "6", "8"], ["2", "4", "6", "8"]))


def test_multilayer_perceptron():
    class Perceptron(nn.Module):
        def __init__(self, *widths):
            super().__init__()
            self.fc = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            for fc in self.fc[:-1]:
                x = self.act(fc(x))
            return self.fc[-1](x)

    batch = {"inputs": torch.randn(3, 5)}
    small, large = Perceptron(5, 8, 8, 3), Perceptron(5, 16, 16, 16, 16, 3)
    check(small, large, batch, (["act#1", "act#2"], ["act#2", "act#4"]))


def test_recurrent_tokens():
    class Tagger(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.embedding = nn.Embedding(11, width)
            self.gru = nn.GRU(width, width, batch_first=True)
            self.head = nn.Linear(width, 11)

        def forward(self, ids):
            return self.head(self.gru(self.embedding(ids))[0])

    batch = {"inputs": torch.randint(11, (3, 6)), "targets": torch.randint(11, (3, 6))}
    check(Tagger(4), Tagger(8), batch, (["embedding", "gru"], ["embedding", "gru"]), Tokens())


def test_encoder_decoders_pair_like_stacks():
    class Translator(nn.Module):
        def __init__(self, encoders, decoders):
            super().__init__()
            layer = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "batch_first": True}
            self.encoder = nn.ModuleList(nn.TransformerEncoderLayer(**layer) for _ in range(encoders))
            self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(**layer) for _ in range(decoders))
            self.embedding = nn.Embedding(11, 8)

        def forward(self, ids):
            x = y = self.embedding(ids)
            for layer in self.encoder:
                x = layer(x)
            for layer in self.decoder:
                y = layer(y, x)
            return y @ self.embedding.weight.T

    batch = {"inputs": torch.randint(11, (3, 6)), "targets": torch.randint(11, (3, 6))}
    proposed = propose(Translator(2, 1), Translator(4, 4), batch, Tokens())
    assert proposed == {"student": ["encoder.0", "encoder.1"], "teacher": ["encoder.1", "encoder.3"]}


def test_bert_without_weights():
    transformers = pytest.importorskip("transformers")

    def bert(layers: int, width: int) -> nn.Module:
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * width,
            num_labels=3,
        )
        return transformers.BertForSequenceClassification(config)

    ids = torch.randint(50, (3, 7))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 2])}
    expected = [f"bert.encoder.layer.{i}" for i in (0, 1)], [f"bert.encoder.layer.{i}" for i in (2, 5)]
    check(bert(2, 8), bert(6, 16), batch, expected)


def test_wrapped_and_compiled_networks_get_plain_names():
    student, teacher = nn.Sequential(OrderedDict(module=CifarResNet(2))), CifarResNet(2)
    teacher = torch.compile(teacher, backend="eager")
    assert propose(student, teacher, images(32), TASK) == {"student": LAYERS, "teacher": LAYERS}


def test_nothing_to_propose():
    with pytest.raises(RequestError, match="Linear has no layer to propose") as caught:
        propose(nn.Linear(5, 3), nn.Linear(5, 3), {"inputs": torch.randn(2, 5)}, TASK)
    assert "taps" in str(caught.value)
