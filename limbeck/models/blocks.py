"""The residual block and the three-stage network that the built-in convolutional networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["convolution", "padding"]


class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, between channels of zeros (He et al. 2015, option A); no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]."""
        kept = inputs[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 2), which is changed where shapes differ.

    No ReLU works in place: what a stage returned stays what it returned, so every layer can be tapped.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut = "convolution"
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride == 1 and in_channels == out_channels:
            return
        if shortcut == "padding":
            self.downsample = PaddedShortcut(in_channels, out_channels, stride)
        else:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)], not negative."""
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        return torch.relu(self.bn2(self.conv2(hidden)) + shortcut)


def stage(
    in_channels: int, out_channels: int, stride: int, blocks: int, shortcut: Shortcut = "convolution"
) -> nn.Sequential:
    """`blocks` residual blocks, the first of which changes width and resolution."""
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    return nn.Sequential(first, *[BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)])


class StagedResNet(nn.Module):
    """conv1, bn1, layer1, layer2, layer3, mean over positions, fc; pictures of any size.

    Args:
        num_classes: length of the output.
        channels: of the input.
        stem: channels of the first convolution.
        widths: channels of the three stages.
        blocks: residual blocks of the three stages.
        stem_stride: of the first convolution.
        first_stride: of the first stage; the others have 2.
        shortcut: where shapes differ, a 1x1 convolution, or channels of zeros.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        stem: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        stem_stride: int = 1,
        first_stride: int = 1,
        shortcut: Shortcut = "convolution",
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(channels, stem, 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = stage(stem, first, first_stride, blocks[0], shortcut)
        self.layer2 = stage(first, second, 2, blocks[1], shortcut)
        self.layer3 = stage(second, third, 2, blocks[2], shortcut)
        self.fc = nn.Linear(third, num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, channels, H, W] -> logits [B, num_classes]."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.fc(hidden.mean((2, 3)))  # type: ignore[no-any-return]


def initialise(network: nn.Module) -> None:
    """Convolutions from a normal distribution scaled by their fan-out (He et al. 2015), as published."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
