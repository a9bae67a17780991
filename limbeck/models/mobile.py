"""MobileNetV2 for 32x32 pictures (Sandler et al. 2018, arXiv:1801.04381).

As in the distillation benchmark of Tian et al. 2020 (arXiv:1910.10699): the second group keeps its
resolution, ReLU in place of ReLU6, and the first block has an expanding convolution too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.blocks import initialise

#: Expansion, channels, blocks and stride of each group of blocks.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
#: Groups that make up a stage: those of one resolution.
_STAGES = (2, 1, 2, 2)
_LAST = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without ReLU; a shortcut where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)], of either sign."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = torch.relu(self.bn2(self.conv2(hidden)))
        found: Tensor = self.bn3(self.conv3(hidden))
        return inputs + found if self.adds else found


class MobileNetV2(nn.Module):
    """conv1, layer1 to layer4, conv2, mean over positions, fc; pictures of any size."""

    def __init__(self, *, num_classes: int, channels: int, width: float) -> None:
        super().__init__()
        last = int(_LAST * width) if width > 1 else _LAST
        self.conv1 = nn.Conv2d(channels, int(32 * width), 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(int(32 * width))
        self.layer1, self.layer2, self.layer3, self.layer4 = _stages(int(32 * width), width)
        self.conv2 = nn.Conv2d(int(320 * width), last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.fc = nn.Linear(last, num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, channels, H, W] -> logits [B, num_classes]."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        return self.fc(torch.relu(self.bn2(self.conv2(hidden))).mean((2, 3)))  # type: ignore[no-any-return]


def _stages(channels: int, width: float) -> list[nn.Sequential]:
    groups = iter(_GROUPS)
    stages = []
    for number in _STAGES:
        blocks: list[nn.Module] = []
        for _ in range(number):
            expansion, wanted, count, stride = next(groups)
            for block in range(count):
                blocks.append(
                    InvertedResidual(channels, int(wanted * width), 1 if block else stride, expansion)
                )
                channels = int(wanted * width)
        stages.append(nn.Sequential(*blocks))
    return stages


def mobilenet_v2(*, num_classes: int, channels: int = 3, width: float = 0.5) -> nn.Module:
    """A MobileNetV2; 32x32 becomes 16x16, 8x8, 4x4 and 2x2 in its four stages.

    Args:
        num_classes: length of the output.
        channels: 3 for colour, 1 for grey.
        width: factor on the channels, from 0.1; the last convolution has at least 1280.
    """
    if width < 0.1:
        raise RequestError(f"width = {width}; needed at least 0.1")
    return MobileNetV2(num_classes=num_classes, channels=channels, width=width)
