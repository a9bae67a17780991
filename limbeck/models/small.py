"""Small networks for a first run: a teacher, a student a twentieth of its size, and one for rows.

Sizes were chosen on Fashion-MNIST and two processor cores: the teacher learns 10,000 pictures of 28x28 in ten
epochs within half a minute, the student sees more than 8,000 pictures a second in training. All three stages
of both networks have one resolution each: a quarter, an eighth and a sixteenth of the picture's side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.blocks import StagedResNet, initialise


def resnet_small(
    *, num_classes: int, channels: int = 1, widths: Sequence[int] = (32, 64, 128, 256), blocks: int = 1
) -> nn.Module:
    """A residual network of 1.21 million parameters for pictures of some 28x28 to 64x64 pixels.

    It has the layers of resnet8x4 (see `cifar`), at a quarter of the side: a sixteenth of the work.

    Args:
        num_classes: length of the output.
        channels: 1 for grey, 3 for colour.
        widths: channels of the first convolution and of the three stages.
        blocks: residual blocks a stage, two convolutions each.
    """
    _check_widths(widths, 4)
    _positive("blocks", blocks)
    return StagedResNet(
        num_classes=num_classes,
        channels=channels,
        stem=widths[0],
        widths=tuple(widths[1:]),
        blocks=(blocks, blocks, blocks),
        stem_stride=2,
        first_stride=2,
    )


class ConvolutionStage(nn.Module):
    """A 3x3 convolution that halves the resolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, ceil(H / 2), ceil(W / 2)], not negative."""
        return torch.relu(self.bn(self.conv(inputs)))


class TinyNetwork(nn.Module):
    """Four convolutions and a linear layer: conv1, bn1, layer1, layer2, layer3, mean over positions, fc."""

    def __init__(self, *, num_classes: int, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        stem, first, second, third = widths
        self.conv1 = nn.Conv2d(channels, stem, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = ConvolutionStage(stem, first)
        self.layer2 = ConvolutionStage(first, second)
        self.layer3 = ConvolutionStage(second, third)
        self.fc = nn.Linear(third, num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, channels, H, W] -> logits [B, num_classes]."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.fc(hidden.mean((2, 3)))  # type: ignore[no-any-return]


def cnn_tiny(*, num_classes: int, channels: int = 1, widths: Sequence[int] = (16, 32, 48, 80)) -> nn.Module:
    """A plain convolutional network of some 54,000 parameters for pictures of some 28x28 to 64x64 pixels.

    Args:
        num_classes: length of the output.
        channels: 1 for grey, 3 for colour.
        widths: channels of the first convolution and of the three stages.
    """
    _check_widths(widths, 4)
    return TinyNetwork(num_classes=num_classes, channels=channels, widths=tuple(widths))


class Perceptron(nn.Module):
    """Hidden layers layer1, layer2, ... with ReLU, then fc; inputs are flattened."""

    def __init__(self, *, num_classes: int, num_features: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.num_layers = len(widths)
        for number, (before, after) in enumerate(zip((num_features, *widths), widths, strict=False), 1):
            self.add_module(f"layer{number}", nn.Linear(before, after))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1] if widths else num_features, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows [B, num_features], or anything that has as many values a sample -> logits [B, num_classes]."""
        hidden = inputs.flatten(1)
        for number in range(1, self.num_layers + 1):
            hidden = self.dropout(torch.relu(self.get_submodule(f"layer{number}")(hidden)))
        return self.fc(hidden)  # type: ignore[no-any-return]


def mlp(
    *, num_classes: int, num_features: int, widths: Sequence[int] = (128, 128), dropout: float = 0.0
) -> nn.Module:
    """A multi-layer perceptron for rows of numbers, or for small pictures, which it flattens.

    Args:
        num_classes: length of the output.
        num_features: values of one sample; taken from the data unless given.
        widths: units of the hidden layers; none makes it linear.
        dropout: share of the hidden units that are left out in training, 0 to below 1.
    """
    _check_widths(widths, len(widths))
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout = {dropout}; needed 0 to below 1")
    return Perceptron(
        num_classes=num_classes, num_features=num_features, widths=tuple(widths), dropout=dropout
    )


def _check_widths(widths: Sequence[int], number: int) -> None:
    if len(widths) != number:
        raise RequestError(f"widths = {list(widths)}; needed {number} numbers")
    for width in widths:
        _positive("widths", width)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise RequestError(f"{name} holds {value}; needed at least 1")
