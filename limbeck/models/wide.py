"""Wide residual networks for 32x32 pictures (Zagoruyko, Komodakis 2016, arXiv:1605.07146)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.blocks import initialise


class WideBlock(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions; a 1x1 convolution where widths differ.

    Where widths differ, the shortcut starts behind the first normalisation, as in the authors' code.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)], of either sign."""
        ready = torch.relu(self.bn1(inputs))
        shortcut = inputs if self.shortcut is None else self.shortcut(ready)
        return self.conv2(torch.relu(self.bn2(self.conv1(ready)))) + shortcut  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """conv1, layer1, layer2, layer3, bn1, ReLU, mean over positions, fc; pictures of any size."""

    def __init__(self, *, num_classes: int, channels: int, blocks: int, widen: int) -> None:
        super().__init__()
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.layer1 = _stage(widths[0], widths[1], 1, blocks)
        self.layer2 = _stage(widths[1], widths[2], 2, blocks)
        self.layer3 = _stage(widths[2], widths[3], 2, blocks)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, channels, H, W] -> logits [B, num_classes]."""
        hidden = self.layer3(self.layer2(self.layer1(self.conv1(inputs))))
        return self.fc(torch.relu(self.bn1(hidden)).mean((2, 3)))  # type: ignore[no-any-return]


def _stage(in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Sequential:
    first = WideBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *[WideBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)])


def wide_resnet(*, num_classes: int, channels: int = 3, depth: int, widen: int) -> nn.Module:
    """A wide ResNet; 32x32 becomes 32x32, 16x16 and 8x8 in its three stages.

    Args:
        num_classes: length of the output.
        channels: 3 for colour, 1 for grey.
        depth: 10, 16, 22, 28, 40, ...: 6 n + 4.
        widen: factor on the widths 16, 32, 64 of the stages.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise RequestError(f"depth = {depth}; needed 6 n + 4: 10, 16, 22, 28, 34, 40")
    if widen < 1:
        raise RequestError(f"widen = {widen}; needed at least 1")
    return WideResNet(num_classes=num_classes, channels=channels, blocks=blocks, widen=widen)
