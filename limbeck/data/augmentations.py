"""Augmentations of whole batches of pictures: pure functions of the pixels and the draws of their samples.

What a sample looks like does not depend on the others of its batch: sums over pixels are exact, and all else
is computed value by value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.augment import Colour, Crop, Erase, Flip, RandAugment, ResizedCrop, Rotate, SimCLR
from limbeck.data.colours import STEPS, grey
from limbeck.data.draws import Draws
from limbeck.errors import RequestError, require

#: Windows of random size that are tried until one fits into the picture.
_TRIES = 10
_MODES = {"zeros": "constant", "reflect": "reflect"}


def crop(pixels: Tensor, draws: Draws, options: Crop) -> Tensor:
    """A window of the old size at a random place of the picture, padded on each side (He et al. 2016, 4.2).

    Args:
        pixels: [B, C, H, W], of any type.
        draws: of the samples.
        options: padding and what it consists of.
    """
    height, width = pixels.shape[2:]
    padding = options.padding
    if options.border == "reflect" and padding >= min(height, width):
        raise RequestError(
            f"data.augment: crop cannot mirror {padding} pixels of pictures {height} x {width}",
            fix=f"padding = {min(height, width) - 1}",
        )
    padded = F.pad(pixels, (padding,) * 4, mode=_MODES[options.border])
    top = draws.integers("crop.top", 2 * padding + 1)
    left = draws.integers("crop.left", 2 * padding + 1)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view of all there are: no copy
    return windows[torch.arange(len(pixels)), :, top, left]


def flip(pixels: Tensor, draws: Draws, options: Flip) -> Tensor:
    """Left and right swapped for a part of the samples, alike at all places.

    Args:
        pixels: [B, C, H, W], of any type.
        draws: of the samples.
        options: the part.
    """
    rows = (draws.uniform("flip", shared=True) < options.probability).nonzero().squeeze(1)
    result = pixels.clone()
    result[rows] = pixels[rows].flip(3)
    return result


def resized_crop(pixels: Tensor, draws: Draws, options: ResizedCrop) -> Tensor:
    """A window of random area, shape and place, brought to the old size (Szegedy et al. 2015, section 6).

    The area is uniform, the ratio of width to height log-uniform. The first of ten windows that fits is
    taken; else the largest one in the middle whose ratio is in range. Bilinear, as if the window were cut out
    first.

    Args:
        pixels: [B, C, H, W], floating.
        draws: of the samples.
        options: ranges of area and ratio.
    """
    _check_floating("resized-crop", pixels)
    height, width = pixels.shape[2:]
    wide, high = _sides(draws, "resized-crop", height * width, options.scale, options.ratio)
    found, chosen = _first(high, wide, (high > 0) & (wide > 0) & (high <= height) & (wide <= width))
    whole = _middle(height, width, options.ratio)
    high, wide = (torch.where(found, own, other) for own, other in zip(chosen, whole, strict=True))
    top = torch.where(found, draws.integers("resized-crop.top", height - high + 1), (height - high) // 2)
    left = torch.where(found, draws.integers("resized-crop.left", width - wide + 1), (width - wide) // 2)
    rows, columns = _places(top, high, height), _places(left, wide, width)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)], dim=3
    )
    return F.grid_sample(pixels, grid.to(pixels.dtype), padding_mode="border", align_corners=False)


def _sides(
    draws: Draws, name: str, pixels: int, scale: Sequence[float], ratio: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Two sides of `_TRIES` boxes a sample, the first by the second is the ratio; int64 [B, tries] each."""
    areas = pixels * (scale[0] + (scale[1] - scale[0]) * draws.uniforms(f"{name}.area", _TRIES))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = (low + (high - low) * draws.uniforms(f"{name}.ratio", _TRIES)).exp()
    return (areas * ratios).sqrt().round().long(), (areas / ratios).sqrt().round().long()


def _first(high: Tensor, wide: Tensor, fits: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Whether any box fits, bool [B], and the sides of the first that does, int64 [B] each."""
    place = fits.int().argmax(1, keepdim=True)
    return fits.any(1), (high.gather(1, place).squeeze(1), wide.gather(1, place).squeeze(1))


def _middle(height: int, width: int, ratio: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Height and width of the largest window whose ratio of width to height is in range."""
    low, high = ratio
    return (
        torch.tensor(min(height, max(round(width / low), 1))),
        torch.tensor(min(width, max(round(height * high), 1))),
    )


def _places(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where `size` values lie that a stretch is resized to, from -1 to 1 over the whole side; [B, size]."""
    steps = length[:, None] / size
    inside = ((torch.arange(size) + 0.5) * steps - 0.5).clamp(min=0).minimum(length[:, None] - 1)
    return (2 * (start[:, None] + inside) + 1) / size - 1


def colour(pixels: Tensor, draws: Draws, options: Colour) -> Tensor:
    """Brightness, contrast, saturation and hue changed by random amounts, in an order drawn for each sample.

    Each factor is uniform; values are cut to 0..1 after each change. Grey pictures have no saturation or hue.

    Args:
        pixels: [B, 1 or 3, H, W], floating, from 0 to 1.
        draws: of the samples.
        options: strengths, and the part of the samples.
    """
    _check_floating("colour", pixels)
    _check_channels("colour", pixels)
    changed = draws.uniform("colour") < options.probability
    order = draws.uniforms("colour.order", len(STEPS)).argsort(1)
    result = pixels.clone()
    for turn in range(len(STEPS)):
        for number, (name, step) in enumerate(STEPS.items()):
            strength = getattr(options, name)
            if strength == 0 or (step.coloured and pixels.shape[1] == 1):
                continue
            rows = ((order[:, turn] == number) & changed).nonzero().squeeze(1)
            if not len(rows):
                continue
            low, high = step.span(strength)
            amount = low + (high - low) * draws.of(rows).uniform(f"colour.{name}")
            result[rows] = step(result[rows], amount.to(pixels.dtype)[:, None, None, None])
    return result


def erase(pixels: Tensor, draws: Draws, options: Erase) -> Tensor:
    """A box of random area, shape and place overwritten in a part of the samples (Zhong et al. 2020).

    The area is uniform, the ratio of height to width log-uniform. The first of ten boxes that fits is taken;
    where none does, the sample stays as it is.

    Args:
        pixels: [B, C, H, W]; floating, unless the box is black.
        draws: of the samples.
        options: the part, ranges of area and ratio, what is written.
    """
    if options.fill == "noise":
        _check_floating("erase", pixels, ', or fill = "black"')
    channels, height, width = pixels.shape[1:]
    rows = (draws.uniform("erase") < options.probability).nonzero().squeeze(1)
    draws = draws.of(rows)
    high, wide = _sides(draws, "erase", height * width, options.scale, options.ratio)
    found, (high, wide) = _first(high, wide, (high < height) & (wide < width))
    top = draws.integers("erase.top", height - high + 1)
    left = draws.integers("erase.left", width - wide + 1)
    box = _stretch(top, high, height)[:, :, None] & _stretch(left, wide, width)[:, None, :]
    place, channel, row, column = (
        (box & found[:, None, None])[:, None].expand(-1, channels, -1, -1).nonzero(as_tuple=True)
    )
    result = pixels.clone()
    values: Tensor | float = 0
    if options.fill == "noise":
        numbers = (channel * height + row) * width + column
        values = draws.of(place).uniforms("erase.noise", numbers[:, None]).squeeze(1).to(pixels.dtype)
    result[rows[place], channel, row, column] = values
    return result


def _stretch(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Which of `size` places lie in a stretch; bool [b, size]."""
    places = torch.arange(size)
    return (places >= start[:, None]) & (places < (start + length)[:, None])


def rotate(pixels: Tensor, draws: Draws, options: Rotate) -> Tensor:
    """Counterclockwise by as many quarter turns as the number of the sample's place.

    Args:
        pixels: [B, C, H, H], of any type.
        draws: of the samples; nothing is drawn.
        options: none.
    """
    height, width = pixels.shape[2:]
    if height != width:
        raise RequestError(
            f"data.augment: rotate turns square pictures; these are {height} x {width}",
            fix="data.size, which makes them square, or leave rotate out",
        )
    turns = draws.place % 4
    if not bool(turns.any()):
        return pixels
    result = pixels.clone()
    for number in (1, 2, 3):
        rows = (turns == number).nonzero().squeeze(1)
        result[rows] = pixels[rows].rot90(number, (2, 3))
    return result


def simclr(pixels: Tensor, draws: Draws, options: SimCLR) -> Tensor:
    """A resized crop and a flip at the first place; at others the views of SimCLR (Chen et al. 2020).

    These are a resized crop, a flip of a half, brightness, contrast and saturation by 0.4 and hue by 0.1,
    grey, and a blur of 0.1 to 2 pixels over a tenth of the picture's height.

    Args:
        pixels: [B, 1 or 3, H, W], floating, from 0 to 1.
        draws: of the samples.
        options: the area of windows, and the part of the samples for each change.
    """
    _check_floating("simclr", pixels)
    _check_channels("simclr", pixels)
    result = pixels.clone()
    for rows, scale in ((draws.place == 0, [0.08, 1.0]), (draws.place != 0, options.scale)):
        rows = rows.nonzero().squeeze(1)
        window = ResizedCrop(name="resized-crop", scale=scale)
        result[rows] = resized_crop(pixels[rows], draws.of(rows), window)
    rows = (draws.uniform("simclr.flip") < 0.5).nonzero().squeeze(1)
    result[rows] = result[rows].flip(3)
    rows = (draws.place != 0).nonzero().squeeze(1)
    own = draws.of(rows)
    result[rows] = colour(result[rows], own, Colour(name="colour", probability=options.colour))
    chosen = rows[own.uniform("simclr.grey") < options.grey]
    result[chosen] = grey(result[chosen]).expand(-1, result.shape[1], -1, -1)
    chosen = rows[own.uniform("simclr.blur") < options.blur]
    result[chosen] = _blurred(result[chosen], 0.1 + 1.9 * draws.of(chosen).uniform("simclr.blur.width"))
    return result


def _blurred(pixels: Tensor, width: Tensor) -> Tensor:
    """Pictures [B, C, H, W] blurred by a Gaussian of the width of each, [B], over a tenth of their height."""
    reach = max(pixels.shape[2] // 20, 1)
    for axis, size in ((2, pixels.shape[2]), (3, pixels.shape[3])):
        ends = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded = F.pad(pixels, ends, mode="replicate")
        # Added in one order, so that a picture does not depend on the others.
        total, summed = torch.zeros_like(width), torch.zeros_like(pixels)
        for step in range(-reach, reach + 1):
            weight = (-((step / width) ** 2) / 2).exp()
            total = total + weight
            summed = summed + weight.to(pixels.dtype)[:, None, None, None] * padded.narrow(
                axis, step + reach, size
            )
        pixels = summed / total.to(pixels.dtype)[:, None, None, None]
    return pixels.clamp(0, 1)


def rand_augment(pixels: Tensor, draws: Draws, options: RandAugment) -> Tensor:
    """Operations drawn for each sample (Cubuk et al. 2020), by torchvision; values are rounded to bytes.

    A sample at a time: torchvision draws from torch's global generator, which is seeded for each sample and
    restored.

    Args:
        pixels: [B, 1 or 3, H, W], floating, from 0 to 1.
        draws: of the samples.
        options: number and strength of the operations.
    """
    _check_floating("randaugment", pixels)
    _check_channels("randaugment", pixels)
    library: Any = require("torchvision.transforms.v2", "vision", "data.augment: randaugment")
    transform = library.RandAugment(num_ops=options.operations, magnitude=options.magnitude)
    raw = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    changed = []
    with torch.random.fork_rng(devices=[]):
        for picture, seed in zip(raw, draws.seeds("randaugment").tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            changed.append(transform(picture))
    return torch.stack(changed).to(pixels.dtype) / 255 if changed else pixels


#: By name. Each draws under names of its own, so adding one changes no other.
AUGMENTATIONS: Mapping[str, Callable[[Tensor, Draws, Any], Tensor]] = {
    "crop": crop,
    "flip": flip,
    "resized-crop": resized_crop,
    "colour": colour,
    "erase": erase,
    "rotate": rotate,
    "simclr": simclr,
    "randaugment": rand_augment,
}


def _check_floating(name: str, pixels: Tensor, otherwise: str = "") -> None:
    if not pixels.is_floating_point():
        raise RequestError(
            f"data.augment: {name} computes with pixels from 0 to 1; these are {pixels.dtype}",
            fix=f"pixels.float() / 255{otherwise}",
        )


def _check_channels(name: str, pixels: Tensor) -> None:
    if pixels.shape[1] not in (1, 3):
        raise RequestError(
            f"data.augment: {name} is for grey and colour pictures; these have {pixels.shape[1]} channels",
            fix=f"leave {name} out",
        )
