"""Changes of brightness, contrast, saturation and hue, as torchvision and Pillow define them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: Weights of red, green and blue in the brightness (ITU-R BT.601).
_WEIGHTS = (0.2989, 0.587, 0.114)
#: Parts of a pixel's brightness that are told apart where a mean is taken.
_STEPS_OF_ONE = 2.0**24


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Every value times the factor.

    Args:
        pixels: [B, C, H, W], from 0 to 1.
        factor: at least 0, [B, 1, 1, 1].
    """
    return (pixels * factor).clamp(0, 1)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """The distance from the mean brightness of the picture times the factor.

    The mean is taken over whole numbers: a sum of floats depends on how many threads share it.

    Args:
        pixels: [B, 1 or 3, H, W], from 0 to 1.
        factor: at least 0, [B, 1, 1, 1].
    """
    parts = (grey(pixels) * _STEPS_OF_ONE).round().long()
    pixels_each = parts.shape[2] * parts.shape[3]
    mean = parts.sum((1, 2, 3), keepdim=True).double() / (pixels_each * _STEPS_OF_ONE)
    return _blend(pixels, mean.to(pixels.dtype), factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """The distance of each pixel from its grey times the factor.

    Args:
        pixels: [B, 3, H, W], from 0 to 1.
        factor: at least 0, [B, 1, 1, 1].
    """
    return _blend(pixels, grey(pixels), factor)


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """The hue of each pixel turned, its value and saturation kept (the HSV model).

    Args:
        pixels: [B, 3, H, W], from 0 to 1.
        turn: part of the colour circle, -0.5 to 0.5, [B, 1, 1, 1].
    """
    red, green, blue = pixels.unbind(1)
    high, low = pixels.amax(1), pixels.amin(1)
    span = high - low
    safe = span.where(span > 0, 1)
    angle = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = angle + 6 * turn.squeeze(1)
    turned = []
    for start in (5, 3, 1):  # red, green, blue
        around = (start + angle) / 6
        around = 6 * (around - around.floor())
        turned.append(high - span * around.minimum(4 - around).clamp(0, 1))
    return torch.stack(turned, 1)


def grey(pixels: Tensor) -> Tensor:
    """Brightness of each pixel, [B, 1, H, W]."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = (pixels[:, n : n + 1] for n in range(3))
    return red * _WEIGHTS[0] + green * _WEIGHTS[1] + blue * _WEIGHTS[2]


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor + other * (1 - factor)).clamp(0, 1)


@dataclass(frozen=True)
class Step:
    """One kind of change.

    Args:
        change: of pixels by an amount.
        centre: the amount that changes nothing.
        coloured: it changes nothing in grey pictures.
    """

    change: Callable[[Tensor, Tensor], Tensor]
    centre: float
    coloured: bool

    def __call__(self, pixels: Tensor, amount: Tensor) -> Tensor:
        """See `change`."""
        return self.change(pixels, amount)

    def span(self, strength: float) -> tuple[float, float]:
        """From where to where amounts are drawn; a factor is at least 0."""
        low = self.centre - strength
        return (max(low, 0.0) if self.centre else low), self.centre + strength


#: By the name of their strength.
STEPS: Mapping[str, Step] = {
    "brightness": Step(brightness, 1.0, coloured=False),
    "contrast": Step(contrast, 1.0, coloured=False),
    "saturation": Step(saturation, 1.0, coloured=True),
    "hue": Step(hue, 0.0, coloured=True),
}
