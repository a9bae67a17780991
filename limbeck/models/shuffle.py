"""ShuffleNets for 32x32 pictures.

Version 1: Zhang et al. 2018 (arXiv:1707.01083), version 2: Ma et al. 2018 (arXiv:1807.11164). As in the
distillation benchmark of Tian et al. 2020 (arXiv:1910.10699): a 1x1 convolution in place of the strided 3x3
one and the pooling, so that the stages see 16x16, 8x8 and 4x4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.models.blocks import initialise

_STEM = 24


def shuffled(value: Tensor, groups: int) -> Tensor:
    """[B, C, H, W] with the channels of the groups taken in turn."""
    batch, channels, height, width = value.shape
    grouped = value.view(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class GroupedBlock(nn.Module):
    """Version 1: grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1; with stride 2 beside the pooled input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.first_groups = 1 if in_channels == _STEM else groups  # 24 channels are too few to be cut
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=self.first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H, W], or [B, out + in, ceil(H / 2), ceil(W / 2)]; not negative."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = torch.relu(self.bn2(self.conv2(shuffled(hidden, self.first_groups))))
        hidden = self.bn3(self.conv3(hidden))
        if self.stride == 1:
            return torch.relu(hidden + inputs)
        return torch.relu(torch.cat([hidden, F.avg_pool2d(inputs, 3, 2, 1)], 1))


class SplitBlock(nn.Module):
    """Version 2, stride 1: half of the channels pass, the other half goes through 1x1, 3x3 depthwise, 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        kept, hidden = inputs.chunk(2, 1)
        hidden = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(hidden)))))
        return shuffled(torch.cat([kept, torch.relu(self.bn3(self.conv3(hidden)))], 1), 2)


class HalvingBlock(nn.Module):
    """Version 2, stride 2: all channels go through two branches, each of which gives half of the result."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, ceil(H / 2), ceil(W / 2)], not negative."""
        left = torch.relu(self.bn2(self.conv2(self.bn1(self.conv1(inputs)))))
        right = torch.relu(self.bn3(self.conv3(inputs)))
        right = torch.relu(self.bn5(self.conv5(self.bn4(self.conv4(right)))))
        return shuffled(torch.cat([left, right], 1), 2)


class ShuffleNetV1(nn.Module):
    """conv1, layer1, layer2, layer3, mean over positions, fc; pictures of any size."""

    def __init__(self, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.layer1 = _grouped_stage(_STEM, 240, 4)
        self.layer2 = _grouped_stage(240, 480, 8)
        self.layer3 = _grouped_stage(480, 960, 4)
        self.fc = nn.Linear(960, num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, channels, H, W] -> logits [B, num_classes]."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.fc(hidden.mean((2, 3)))  # type: ignore[no-any-return]


def _grouped_stage(in_channels: int, out_channels: int, blocks: int, groups: int = 3) -> nn.Sequential:
    first = GroupedBlock(in_channels, out_channels - in_channels, 2, groups)
    return nn.Sequential(
        first, *[GroupedBlock(out_channels, out_channels, 1, groups) for _ in range(blocks - 1)]
    )


class ShuffleNetV2(nn.Module):
    """conv1, layer1, layer2, layer3, conv2, mean over positions, fc; pictures of any size."""

    def __init__(self, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.layer1 = _split_stage(_STEM, 116, 3)
        self.layer2 = _split_stage(116, 232, 7)
        self.layer3 = _split_stage(232, 464, 3)
        self.conv2 = nn.Conv2d(464, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.fc = nn.Linear(1024, num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, channels, H, W] -> logits [B, num_classes]."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.fc(torch.relu(self.bn2(self.conv2(hidden))).mean((2, 3)))  # type: ignore[no-any-return]


def _split_stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    first = HalvingBlock(in_channels, out_channels)
    return nn.Sequential(first, *[SplitBlock(out_channels) for _ in range(blocks)])


def shufflenet_v1(*, num_classes: int, channels: int = 3) -> nn.Module:
    """ShuffleNetV1, 3 groups; 32x32 becomes 16x16, 8x8 and 4x4 in its three stages.

    Args:
        num_classes: length of the output.
        channels: 3 for colour, 1 for grey.
    """
    return ShuffleNetV1(num_classes=num_classes, channels=channels)


def shufflenet_v2(*, num_classes: int, channels: int = 3) -> nn.Module:
    """ShuffleNetV2, width 1; 32x32 becomes 16x16, 8x8 and 4x4 in its three stages.

    Args:
        num_classes: length of the output.
        channels: 3 for colour, 1 for grey.
    """
    return ShuffleNetV2(num_classes=num_classes, channels=channels)
