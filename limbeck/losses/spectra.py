"""Maps as spectra: how much of each frequency they hold, wherever on the map it lies.

Legend: f a map [B, C, H, W]; u, v whole frequencies, in cycles over the map; Z its transform; R what is
compared. Index i of a block of k stands for the frequency i - k//2, of odd and of even k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.reductions import widen

Representation = Literal["magnitude", "log_magnitude", "complex"]
Downsample = Literal["crop", "pool"]


def spectrum(maps: Tensor) -> Tensor:
    """Z[u, v] = (H W)^(-1/2) sum_yx f[y, x] exp(-2 pi i (u y / H + v x / W)); keeps the energy of a map.

    Computed in float32 or wider: half precision has no transform on the CPU and loses small coefficients.

    Args:
        maps: f, real, [B, C, H, W].

    Returns:
        Complex [B, C, H, W] with the zero frequency at (H//2, W//2).
    """
    shifted: Tensor = torch.fft.fftshift(torch.fft.fft2(widen(maps), norm="ortho"), dim=(-2, -1))
    return shifted


def central(values: Tensor, size: Sequence[int]) -> Tensor:
    """The block of a shifted spectrum around its zero frequency: its lowest frequencies.

    A frequency counts cycles over the map, so that equal blocks of a large and of a small map are of equal
    frequencies.

    Args:
        values: [..., H, W], the zero frequency at (H//2, W//2).
        size: rows and columns, at least 1, at most H and W.

    Returns:
        [..., rows, columns], the zero frequency at (rows//2, columns//2).
    """
    (rows, columns), (height, width) = size, values.shape[-2:]
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise RequestError(f"a block of {rows} x {columns} frequencies from a spectrum of {height} x {width}")
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    return values[..., top : top + rows, left : left + columns]


def low_pass(size: Sequence[int], sigma: float, like: Tensor) -> Tensor:
    """G[u, v] = exp(-u^2 / (2 s^2)) exp(-v^2 / (2 t^2)), s = sigma rows / 2, t = sigma columns / 2.

    Args:
        size: rows and columns of the block.
        sigma: > 0, relative to half the block.
        like: gives type and device.

    Returns:
        [rows, columns]; 1 at the zero frequency.
    """
    gains = []
    for side in size:
        frequency = torch.arange(side, device=like.device, dtype=like.dtype) - side // 2
        gains.append(torch.exp(-frequency.square() / (2 * (sigma * side / 2) ** 2)))
    return torch.outer(*gains)


def spectral_representation(
    maps: Tensor,
    size: Sequence[int],
    *,
    representation: Representation = "magnitude",
    sigma: float | None = 0.5,
    downsample: Downsample = "crop",
    epsilon: float = 1e-8,
) -> Tensor:
    """The low frequencies of maps: transform, central block, low pass, magnitude.

    UHKD (Yu et al. 2025); its text was not available, so this is a reading. With `complex`, no low pass and
    a block as large as the map, squared errors are half those of the maps themselves (Parseval).

    Args:
        maps: f, real, [B, C, H, W]; half precision is widened to float32.
        size: rows and columns of the block.
        representation: `magnitude` R = sqrt(|Z|^2 + epsilon), which a circular shift of the map leaves as it
            is; `log_magnitude` log(1 + R); `complex`, real and imaginary part, channels one after the other.
        sigma: of the low pass; None: none.
        downsample: `crop` takes the block and weights it before the magnitude; `pool` averages the whole R
            (real and imaginary part apart) to the size of the block, then weights it.
        epsilon: >= 0; without it the gradient at a coefficient of 0 is not finite.

    Returns:
        Real [B, C, rows, columns], [B, 2C, rows, columns] for `complex`.
    """
    values = spectrum(maps)
    if downsample == "crop":
        block = central(values, size)
        if sigma is not None:
            block = block * low_pass(size, sigma, block.real)
        return _real(block, representation, epsilon)
    rows, columns = size
    pooled = F.adaptive_avg_pool2d(_real(values, representation, epsilon), (rows, columns))
    return pooled if sigma is None else pooled * low_pass(size, sigma, pooled)


def unit_power(values: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Each sample divided by the root of its mean square; gradient runs through the divisor.

    Args:
        values: [B, ...].
        epsilon: added to the mean square.

    Returns:
        The same shape.
    """
    power = values.square().flatten(1).mean(1) + epsilon
    return values / power.sqrt().reshape(-1, *[1] * (values.ndim - 1))


def _real(values: Tensor, representation: Representation, epsilon: float) -> Tensor:
    if representation == "complex":
        return torch.cat((values.real, values.imag), 1)
    magnitude = (values.real.square() + values.imag.square() + epsilon).sqrt()
    return magnitude if representation == "magnitude" else magnitude.log1p()
