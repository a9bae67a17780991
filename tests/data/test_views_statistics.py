"""Views are distributed as ordinary random augmentations are: torchvision's, read from the pixels alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from limbeck.data.views import Draws, Views

NUMBER = 3000
SIZE = 40
#: Channels 0 and 1 say where a pixel comes from: its row and column.
RAMPS = torch.stack(
    [torch.arange(SIZE)[:, None].expand(-1, SIZE), torch.arange(SIZE).expand(SIZE, -1)]
).double()


def drawn(entry: Any, picture: Tensor, number: int = NUMBER) -> Tensor:
    return Views(0, [entry])(picture.expand(number, -1, -1, -1), torch.arange(number), 1)


def assert_same_distribution(own: Tensor, other: Tensor) -> None:
    """Kolmogorov and Smirnov's test of two samples, 99.9 %; conservative where values repeat."""
    own, other = own.double().sort().values, other.double().sort().values
    both = torch.cat([own, other])
    shares = [torch.searchsorted(each, both, right=True) / len(each) for each in (own, other)]
    limit = 1.95 * ((len(own) + len(other)) / (len(own) * len(other))) ** 0.5
    assert float((shares[0] - shares[1]).abs().max()) < limit


def assert_uniform(values: Tensor, low: float, high: float) -> None:
    assert float(values.min()) >= low - 1e-5
    assert float(values.max()) <= high + 1e-5
    assert_same_distribution(values, low + (high - low) * (torch.arange(20000) + 0.5) / 20000)


def windows(pictures: Tensor) -> dict[str, Tensor]:
    """Height, width, top and left of the windows that pictures [N, 2, H, W] of `RAMPS` show."""
    first, last = SIZE // 4, 3 * SIZE // 4  # far from the window's edge
    found = {}
    for side, start, lines in (
        ("height", "top", pictures[:, 0, :, 0]),
        ("width", "left", pictures[:, 1, 0, :]),
    ):
        step = (lines[:, last] - lines[:, first]) / (last - first)
        found[side] = step * SIZE
        found[start] = lines[:, first] - (first + 0.5) * step + 0.5
    return found


def test_windows_of_resized_crop() -> None:
    own = windows(drawn("resized-crop", RAMPS))
    transform = v2.RandomResizedCrop(SIZE)
    boxes = [transform.make_params([RAMPS]) for _ in range(NUMBER)]
    other = {name: torch.tensor([box[name] for box in boxes]) for name in boxes[0]}
    for name, values in own.items():
        assert_same_distribution(
            (values * 1024).round() / 1024, other[name]
        )  # whole numbers but for rounding
    for size in (own, other):
        size["area"], size["ratio"] = size["height"] * size["width"], size["width"] / size["height"]
    for name in ("area", "ratio"):
        assert_same_distribution((own[name] * 1024).round() / 1024, (other[name] * 1024).round() / 1024)


def test_boxes_of_erase() -> None:
    changed = drawn({"name": "erase", "fill": "black"}, 1 + RAMPS[:1])[:, 0] == 0
    own = changed.flatten(1).any(1)
    torch.manual_seed(1)
    transform = v2.RandomErasing(p=1, scale=(0.02, 1 / 3), ratio=(0.3, 3.3))
    boxes = [transform.make_params([RAMPS[:1]]) for _ in range(NUMBER)]
    other = {name: torch.tensor([box[name] for box in boxes]) for name in ("i", "j", "h", "w")}
    assert abs(float(own.double().mean()) - 0.25) < 3.3 * (0.25 * 0.75 / NUMBER) ** 0.5
    rows, columns = changed[own].any(2), changed[own].any(1)
    assert_same_distribution(rows.sum(1), other["h"])
    assert_same_distribution(columns.sum(1), other["w"])
    assert_same_distribution(rows.int().argmax(1), other["i"])
    assert_same_distribution(columns.int().argmax(1), other["j"])


def test_places_of_crop_and_sides_of_flip() -> None:
    shown = drawn({"name": "crop", "padding": 6}, 1 + RAMPS)  # from 1, so that the border is told apart
    middle = SIZE // 2
    for axis in (0, 1):
        offsets = shown[:, axis, middle, middle] - 1 - middle
        counts = torch.bincount((offsets + 6).long(), minlength=13)
        assert len(counts) == 13
        assert float(((counts - NUMBER / 13) ** 2 / (NUMBER / 13)).sum()) < 32.9  # 12 degrees, 99.9 %
    for share in (0.5, 0.2):
        flipped = drawn({"name": "flip", "probability": share}, RAMPS)[:, 1, 0, 0] > 0
        error = abs(float(flipped.double().mean()) - share)
        assert error < 3.3 * (share * (1 - share) / NUMBER) ** 0.5


def _alone(name: str, strength: float) -> dict[str, Any]:
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return {"name": "colour", **none, name: strength}


#: By strength: a picture, how its amount is read from the pixels, and from where to where it is drawn.
AMOUNTS: dict[str, tuple[Tensor, Callable[[Tensor], Tensor], float, float]] = {
    "brightness": (torch.full((3, 2, 2), 0.25), lambda p: p[:, 0, 0, 0] / 0.25, 0.6, 1.4),
    "contrast": (
        torch.tensor([0.4, 0.6]).expand(3, 2, 2),
        lambda p: (p[:, 0, 0, 1] - p[:, 0, 0, 0]) / 0.2,
        0.6,
        1.4,
    ),
    "saturation": (
        torch.tensor([0.5, 0.4, 0.4])[:, None, None].expand(3, 2, 2),
        lambda p: (p[:, 0, 0, 0] - p[:, 1, 0, 0]) / 0.1,
        0.6,
        1.4,
    ),
    # Pure cyan turned by up to 0.1 of the circle: green falls one way, blue the other.
    "hue": (
        torch.tensor([0.0, 1.0, 1.0])[:, None, None].expand(3, 2, 2),
        lambda p: (p[:, 2, 0, 0] - p[:, 1, 0, 0]) / 6,
        -0.1,
        0.1,
    ),
}


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_of_colour(name: str) -> None:
    picture, read, low, high = AMOUNTS[name]
    strength = 0.1 if name == "hue" else 0.4
    assert_uniform(read(drawn(_alone(name, strength), picture.double())), low, high)


def test_order_of_colour() -> None:
    order = Draws(0, torch.arange(NUMBER), 1).uniforms("colour.order", 4).argsort(1)
    counts = (order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24
    assert float(((counts - NUMBER / 24) ** 2 / (NUMBER / 24)).sum()) < 49.8  # 23 degrees, 99.9 %


def test_pictures_of_colour() -> None:
    picture = torch.rand(3, 4, 4)
    own = drawn({"name": "colour", "hue": 0.2}, picture, 1000)
    transform = v2.ColorJitter(0.4, 0.4, 0.4, 0.2)
    other = torch.stack([transform(picture) for _ in range(1000)])
    for channel in range(3):
        assert_same_distribution(own[:, channel, 1, 2], other[:, channel, 1, 2])
        assert_same_distribution(own[:, channel].mean((1, 2)), other[:, channel].mean((1, 2)))


def test_pictures_of_randaugment() -> None:
    picture = torch.rand(3, 8, 8)
    own = drawn("randaugment", picture, 400).mean((1, 2, 3))
    transform, raw = v2.RandAugment(), (picture * 255).round().to(torch.uint8)
    other = torch.stack([transform(raw) for _ in range(400)]).float().mean((1, 2, 3)) / 255
    assert_same_distribution(own, other)


def test_draws_of_one_sample_are_not_those_of_another() -> None:
    names = ("crop.top", "flip", "resized-crop.top", "colour.hue", "erase.top")
    draws = Draws(0, torch.arange(NUMBER), 1)
    later = Draws(0, torch.arange(NUMBER), 2)
    columns = [each.uniform(name) for each in (draws, later) for name in names]
    columns += [draws.uniforms("erase.area", 2)[:, number] for number in (0, 1)]
    related = torch.corrcoef(torch.stack([*columns, columns[0].roll(1)])).fill_diagonal_(0)
    assert float(related.abs().max()) < 4.5 / NUMBER**0.5
