"""Parts of UniKD: maps of layers, their fusion, the distribution that is predicted from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses import gaussian_sample, widen
from limbeck.methods._sequences import valid_positions
from limbeck.methods._spectral import Tap

Size = tuple[int, int]


def size_of(tap: Tap) -> Size:
    """Height and width of the map of a layer; sequences are one cell, as they are averaged."""
    return (1, 1) if tap.layout.form == "line" else tap.sides[1:]


def map_of(tap: Tap, value: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """The value of a layer as a map [B, C, H, W]; of a sequence the mean over its valid positions, one cell.

    Args:
        tap: the layer.
        value: what it gave, by its layout.
        batch: normal form, which says where padding is.
    """
    if tap.layout.form != "line":
        return tap.to_map(value)
    mask = valid_positions(batch, value, tap.layer) if value.ndim == 3 else None
    cells = tap.to_map(value)  # [B, D, 1, positions after the prefix]
    if mask is None:
        return cells.mean(3, keepdim=True)
    keep = mask[:, None, None, tap.layout.prefix :]
    # Padding may hold anything, so it is replaced and not multiplied by 0.
    summed = widen(cells).masked_fill(~keep, 0).sum(3, keepdim=True)
    return summed / keep.sum(3, keepdim=True).clamp(min=1)


def resized(value: Tensor, size: Sequence[int]) -> Tensor:
    """[B, C, H, W] -> [B, C, *size], each cell the nearest one's value; unchanged where sizes agree."""
    return value if tuple(value.shape[2:]) == tuple(size) else F.interpolate(value, size=tuple(size))


class Fusion(nn.Module):
    """AFF: the maps of all levels as one, from the deepest level to the shallowest.

    a = ReLU(1x1(x)), M channels; below the deepest level y = the residual of the level before at the size of
    x, two gates = sigmoid(1x1([a; y])) and a = a * gate_0 + y * gate_1. Then a takes the size of the level:
    the residual of the next. The fused map is ReLU(3x3(a)) of the shallowest level. All but the gates without
    bias; computed in float32 or wider.

    Args:
        channels: of each level, deepest first, at least one.
        middle: M.
        out: channels of the fused map.
        sizes: height and width of each level, deepest first.
    """

    def __init__(self, channels: Sequence[int], middle: int, out: int, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.reduce = nn.ModuleList(nn.Conv2d(wide, middle, 1, bias=False) for wide in channels)
        self.gates = nn.ModuleList(nn.Conv2d(2 * middle, 2, 1) for _ in channels[1:])
        self.out = nn.Conv2d(middle, out, 3, padding=1, bias=False)
        for convolution in (*self.reduce, self.out):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, H, W], deepest first, to one [B, out, *sizes[-1]]."""
        return F.relu(_convolve(self.out, self.residuals(maps)[-1]))

    def residuals(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What each level hands to the next, [B, M, *size], deepest first."""
        found: list[Tensor] = []
        for number, (value, reduce, size) in enumerate(zip(maps, self.reduce, self.sizes, strict=True)):
            own = F.relu(_convolve(reduce, value))
            if number:
                deeper = resized(found[-1], own.shape[2:])
                gate = torch.sigmoid(_convolve(self.gates[number - 1], torch.cat([own, deeper], 1)))
                own = own * gate[:, :1] + deeper * gate[:, 1:]
            found.append(resized(own, size))
        return found


class Regressor(nn.Module):
    """A 1x1 convolution with bias, in float32 or wider; in the place of a fusion where one map is read."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(channels, out, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """One map [B, C, H, W] -> [B, out, H, W]."""
        (value,) = maps
        return _convolve(self.out, value)


class Gaussian(NamedTuple):
    """A diagonal Gaussian for each sample.

    Args:
        mean: [B, K].
        log_variance: [B, K]; None where only the mean is used.
    """

    mean: Tensor
    log_variance: Tensor | None

    def sample(self, noise: Tensor | None) -> Tensor:
        """[B, K], drawn with noise [B, K]; the mean without."""
        if noise is None or self.log_variance is None:
            return self.mean
        return gaussian_sample(self.mean, self.log_variance, noise.to(self.mean.dtype))

    def detach(self) -> Gaussian:
        """The same without gradient."""
        return Gaussian(self.mean.detach(), None if self.log_variance is None else self.log_variance.detach())


class Prediction(nn.Module):
    """FDP: mean and log variance of a Gaussian from a map, each a Linear of the average over space.

    Args:
        channels: of the map.
        width: K.
        variance: there is a log variance.
        bound: it is kept within -bound..bound; None for no bound.
    """

    def __init__(
        self, channels: int, width: int, *, variance: bool = True, bound: float | None = None
    ) -> None:
        super().__init__()
        self.bound = bound
        self.mean = nn.Linear(channels, width)
        self.log_variance = nn.Linear(channels, width) if variance else None

    def forward(self, fused: Tensor) -> Gaussian:
        """[B, C, H, W] -> a Gaussian of K values a sample, in float32 or wider."""
        vector = fused.mean((2, 3))
        mean = _map_linearly(self.mean, vector)
        if self.log_variance is None:
            return Gaussian(mean, None)
        logs = _map_linearly(self.log_variance, vector)
        return Gaussian(mean, logs if self.bound is None else logs.clamp(-self.bound, self.bound))


def _convolve(layer: nn.Module, value: Tensor) -> Tensor:
    """A convolution of the layer's weights, in float32 or wider."""
    assert isinstance(layer, nn.Conv2d)
    weight, bias = _wide(layer)
    return F.conv2d(value.to(weight.dtype), weight, bias, padding=layer.padding)


def _map_linearly(layer: nn.Linear, value: Tensor) -> Tensor:
    weight, bias = _wide(layer)
    return F.linear(value.to(weight.dtype), weight, bias)


def _wide(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor | None]:
    return widen(layer.weight), None if layer.bias is None else widen(layer.bias)
