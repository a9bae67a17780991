"""Residual networks for 32x32 pictures, as the distillation papers use them.

He et al. 2015 (arXiv:1512.03385, section 4.2), unless asked otherwise with a convolution as shortcut where
shapes differ: the layout, names and parameter counts of the networks in Tian et al. 2020 (arXiv:1910.10699),
which most later papers took over. Depth = 6 n + 2 with n blocks in each of three stages.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck.errors import RequestError
from limbeck.models.blocks import Shortcut, StagedResNet

#: Channels of the first convolution and of the stages.
STANDARD = (16, 16, 32, 64)
#: Of the networks called x4; the first convolution is only twice as wide.
FOUR_TIMES = (32, 64, 128, 256)


def cifar_resnet(
    *,
    num_classes: int,
    channels: int = 3,
    depth: int,
    widths: Sequence[int] = STANDARD,
    shortcut: Shortcut = "convolution",
) -> nn.Module:
    """A ResNet for small pictures; 32x32 becomes 32x32, 16x16 and 8x8 in its three stages.

    Args:
        num_classes: length of the output.
        channels: 3 for colour, 1 for grey.
        depth: 8, 14, 20, 26, 32, 44, 56, 110, ...: 6 n + 2.
        widths: channels of the first convolution and of the three stages.
        shortcut: where shapes differ, a 1x1 "convolution", or "padding" with channels of zeros, which has no
            parameters (option A of He et al., CIFAR-10 there).
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise RequestError(f"depth = {depth}; needed 6 n + 2: 8, 14, 20, 26, 32, 44, 56, 110")
    if len(widths) != 4 or min(widths) < 1:
        raise RequestError(f"widths = {list(widths)}; needed 4 numbers, as {list(STANDARD)}")
    return StagedResNet(
        num_classes=num_classes,
        channels=channels,
        stem=widths[0],
        widths=tuple(widths[1:]),
        blocks=(blocks, blocks, blocks),
        shortcut=shortcut,
    )
