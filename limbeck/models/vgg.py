"""VGG networks for 32x32 pictures (Simonyan, Zisserman 2014, arXiv:1409.1556).

With batch normalisation, a mean over positions and one linear layer in place of three: the layout of the
distillation benchmark of Tian et al. 2020 (arXiv:1910.10699). Pictures of 64 pixels and more are halved once
more, between the third and the fourth stage.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.blocks import initialise

#: Convolutions of the five stages by depth.
CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_WIDTHS = (64, 128, 256, 512, 512)
_LARGE = 64  # pixels from which a picture is halved once more


class Vgg(nn.Module):
    """layer1 to layer5 with a pooling after each of the first three, mean over positions, fc."""

    def __init__(self, *, num_classes: int, channels: int, depth: int) -> None:
        super().__init__()
        before = (channels, *_WIDTHS[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = (
            _stage(a, b, number) for a, b, number in zip(before, _WIDTHS, CONVOLUTIONS[depth], strict=True)
        )
        self.fc = nn.Linear(_WIDTHS[-1], num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, channels, H, W], H and W at least 8 -> logits [B, num_classes]."""
        hidden = inputs
        for layer in (self.layer1, self.layer2, self.layer3):
            hidden = F.max_pool2d(layer(hidden), 2)
        hidden = self.layer4(hidden)
        if inputs.shape[-1] >= _LARGE:
            hidden = F.max_pool2d(hidden, 2)
        return self.fc(self.layer5(hidden).mean((2, 3)))  # type: ignore[no-any-return]


def _stage(in_channels: int, out_channels: int, number: int) -> nn.Sequential:
    """`number` times a 3x3 convolution, batch normalisation, ReLU."""
    layers: list[nn.Module] = []
    for convolution in range(number):
        width = out_channels if convolution else in_channels
        layers += [nn.Conv2d(width, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)


def vgg(*, num_classes: int, channels: int = 3, depth: int) -> nn.Module:
    """A VGG network; 32x32 becomes 32x32, 16x16, 8x8, 4x4 and 4x4 in its five stages.

    Args:
        num_classes: length of the output.
        channels: 3 for colour, 1 for grey.
        depth: 8, 11, 13, 16 or 19.
    """
    if depth not in CONVOLUTIONS:
        raise RequestError(f"depth = {depth}; needed one of {', '.join(map(str, CONVOLUTIONS))}")
    return Vgg(num_classes=num_classes, channels=channels, depth=depth)
