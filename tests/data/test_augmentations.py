"""Every augmentation: the same for any batch, as torchvision computes it, its draws pinned."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Tensor
from torchvision.transforms import v2

from limbeck.data.augment import KINDS, augment_of
from limbeck.data.augmentations import AUGMENTATIONS, _blurred
from limbeck.data.colours import STEPS, contrast, hue
from limbeck.data.views import Draws, Views, view_number
from limbeck.errors import RequestError

NUMBER = 48
INDEX = torch.arange(NUMBER) * 3 + 5
COLOUR = torch.rand(NUMBER, 3, 20, 14)
SQUARE = torch.rand(NUMBER, 3, 16, 16)
EVERY: list[Any] = [
    "crop",
    {"name": "crop", "padding": 7, "border": "reflect"},
    "flip",
    "resized-crop",
    {"name": "resized-crop", "scale": (0.5, 0.9), "ratio": (1.0, 1.0)},
    "colour",
    {"name": "colour", "hue": 0.5, "saturation": 0.0, "probability": 0.6},
    {"name": "erase", "probability": 0.8},
    {"name": "erase", "fill": "black"},
    "rotate",
    "simclr",
    {"name": "simclr", "scale": (0.9, 1.0), "colour": 0.0, "grey": 1.0, "blur": 1.0},
    {"name": "randaugment", "operations": 3, "magnitude": 15},
]
NAMES = [entry if isinstance(entry, str) else "-".join(map(str, entry.values())) for entry in EVERY]


def applied(entry: Any, pixels: Tensor, *, seed: int = 0, view: int | Tensor = 1) -> Tensor:
    return Views(seed, [entry])(pixels, INDEX[: len(pixels)], view)


def test_there_is_a_function_for_every_name() -> None:
    assert list(AUGMENTATIONS) == list(KINDS)
    assert {augment_of(entry).name for entry in EVERY} == set(KINDS)


@pytest.mark.parametrize("entry", EVERY, ids=NAMES)
def test_a_sample_looks_the_same_in_any_batch(entry: Any) -> None:
    views, numbers = Views(3, [entry]), view_number(1 + torch.arange(NUMBER) % 3, torch.arange(NUMBER) % 2)
    whole = views(SQUARE, INDEX, numbers)
    assert whole.shape == SQUARE.shape
    assert whole.dtype == SQUARE.dtype
    for row in range(NUMBER):
        alone = views(SQUARE[row : row + 1], INDEX[row : row + 1], int(numbers[row]))
        assert torch.equal(alone[0], whole[row])
    for part in torch.randperm(NUMBER).split(7):
        assert torch.equal(views(SQUARE[part], INDEX[part], numbers[part]), whole[part])


@pytest.mark.parametrize("entry", EVERY, ids=NAMES)
def test_no_state_is_read_or_left_and_the_input_stays(entry: Any) -> None:
    before, pixels = torch.get_rng_state(), SQUARE.clone()
    first = applied(entry, pixels)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(pixels, SQUARE)
    torch.rand(3)
    assert torch.equal(applied(entry, pixels), first)
    assert applied(entry, pixels[:0]).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("entry", EVERY, ids=NAMES)
def test_views_differ_by_sample_view_and_seed(entry: Any) -> None:
    same = SQUARE[:1].expand(NUMBER, -1, -1, -1)
    drawn = applied(entry, same)
    if augment_of(entry).by_place:
        assert torch.equal(drawn, same)
        return
    assert len(drawn.flatten(1).unique(dim=0)) > 1
    assert not torch.equal(drawn, applied(entry, same, view=2))
    assert not torch.equal(drawn, applied(entry, same, seed=1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("entry", EVERY, ids=NAMES)
def test_pixels_stay_from_0_to_1_on_grey_and_colour(entry: Any, channels: int) -> None:
    drawn = applied(entry, SQUARE[:, :channels])
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1 + 1e-6


@pytest.mark.parametrize("size", [(20, 14), (6, 40), (40, 6)])
def test_resized_crop_is_cut_and_resized_as_torchvision_does(size: tuple[int, int]) -> None:
    height, width = size
    pixels = torch.rand(NUMBER, 3, height, width)
    drawn, draws = applied("resized-crop", pixels), Draws(0, INDEX, 1)
    areas = 0.08 + 0.92 * draws.uniforms("resized-crop.area", 10)
    shapes = draws.uniforms("resized-crop.ratio", 10)
    tops, lefts = draws.uniform("resized-crop.top"), draws.uniform("resized-crop.left")
    high, wide = min(height, round(width / 0.75)), min(width, round(height * 4 / 3))
    middle = (height - high) // 2, (width - wide) // 2, high, wide
    for row in range(NUMBER):
        box = middle
        for area, shape in zip(areas[row].tolist(), shapes[row].tolist(), strict=True):
            ratio = 0.75 * (4 / 3 / 0.75) ** shape
            wide, high = (round(math.sqrt(height * width * area * r)) for r in (ratio, 1 / ratio))
            if 0 < wide <= width and 0 < high <= height:
                top, left = int(tops[row] * (height - high + 1)), int(lefts[row] * (width - wide + 1))
                box = (top, left, high, wide)
                break
        expected = reference.resized_crop(pixels[row], *box, [height, width], antialias=True)
        torch.testing.assert_close(drawn[row], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("amount", [0.0, 0.3, 0.5])
def test_colours_are_changed_as_torchvision_does(name: str, amount: float) -> None:
    pixels = COLOUR.clone()
    pixels[0] = pixels[0, :1]  # grey ones too
    pixels[1] = 0
    pixels[2] = (pixels[2] * 2).round() / 2  # equal values
    adjust = {"brightness": "adjust_brightness", "contrast": "adjust_contrast"}
    function = getattr(reference, adjust.get(name, f"adjust_{name}"))
    for signed in (amount, -amount) if name == "hue" else (amount, 1 + amount):
        drawn = STEPS[name](pixels, torch.full((NUMBER, 1, 1, 1), signed))
        torch.testing.assert_close(drawn, function(pixels, signed), atol=2e-6, rtol=0)


def test_colour_is_changed_in_the_drawn_order_by_the_drawn_amounts() -> None:
    drawn, draws = applied("colour", COLOUR), Draws(0, INDEX, 1)
    order = draws.uniforms("colour.order", 4).argsort(1)
    assert len(order.unique(dim=0)) > 12
    for row in range(NUMBER):
        picture = COLOUR[row]
        for number in order[row].tolist():
            name = list(STEPS)[number]
            share = float(draws.uniform(f"colour.{name}")[row])
            factor = 0.1 * (2 * share - 1) if name == "hue" else 0.6 + 0.8 * share
            picture = getattr(reference, f"adjust_{name}")(picture, factor)
        torch.testing.assert_close(drawn[row], picture, atol=1e-5, rtol=0)


def test_a_mean_does_not_depend_on_the_number_of_threads() -> None:
    pixels = torch.rand(1, 3, 256, 256)  # so large that threads share it
    factor = torch.full((1, 1, 1, 1), 0.7)
    one = contrast(pixels, factor)
    torch.set_num_threads(3)
    try:
        assert torch.equal(contrast(pixels, factor), one)
        assert torch.equal(hue(pixels, factor - 0.5), hue(pixels.clone(), factor - 0.5))
    finally:
        torch.set_num_threads(1)


def test_erase_overwrites_one_box_and_nothing_else() -> None:
    drawn = applied({"name": "erase", "probability": 0.5}, COLOUR)
    changed = (drawn != COLOUR).any(1)
    assert 0.2 < float(changed.flatten(1).any(1).double().mean()) < 0.8
    noise = []
    for row in changed.flatten(1).any(1).nonzero().squeeze(1).tolist():
        rows, columns = changed[row].any(1).nonzero(), changed[row].any(0).nonzero()
        box = (slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1))
        assert bool(changed[row][box].all())
        noise.append(drawn[row][:, *box].flatten())
    values = torch.cat(noise)
    assert abs(float(values.mean()) - 0.5) < 0.02
    assert len(values.unique()) > 0.99 * len(values)


def test_randaugment_is_torchvisions_with_the_samples_seed() -> None:
    drawn = applied("randaugment", SQUARE)
    transform, seeds = v2.RandAugment(), Draws(0, INDEX, 1).seeds("randaugment")
    for row in range(NUMBER):
        torch.manual_seed(int(seeds[row]))
        expected = transform((SQUARE[row] * 255).round().to(torch.uint8))
        assert torch.equal(drawn[row], expected.float() / 255)


def test_simclr_changes_colours_and_sharpness_at_places_after_the_first() -> None:
    strong = {"name": "simclr", "scale": (1.0, 1.0), "colour": 0.0, "grey": 1.0, "blur": 0.0}
    first, grey = (applied(strong, COLOUR, view=view_number(1, place)) for place in (0, 1))
    assert not torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    window = {"name": "resized-crop", "scale": (0.08, 1.0)}
    plain = applied(window, COLOUR)
    flipped = (first != plain).flatten(1).any(1)
    assert torch.equal(first, torch.where(flipped[:, None, None, None], plain.flip(3), plain))
    assert 0.2 < flipped.double().mean() < 0.8


def test_the_blur_of_simclr_is_a_gaussian() -> None:
    pixels, width = torch.rand(4, 3, 40, 40), torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    drawn = _blurred(pixels, width)
    for own, picture, sigma in zip(drawn, pixels, width.tolist(), strict=True):
        expected = reference.gaussian_blur(picture, [5, 5], [sigma, sigma])
        torch.testing.assert_close(own[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-5, rtol=0)


def test_a_mirrored_border_equals_a_plain_one() -> None:
    drawn = applied({"name": "crop", "padding": 5, "border": "reflect"}, COLOUR)
    padded = torch.nn.functional.pad(COLOUR, (5,) * 4, mode="reflect")
    draws = Draws(0, INDEX, 1)
    for row in range(NUMBER):
        top, left = (int(draws.integers(f"crop.{side}", 11)[row]) for side in ("top", "left"))
        assert torch.equal(drawn[row], padded[row, :, top : top + 20, left : left + 14])


PINNED: dict[str, Any] = {
    "top": [8, 8],
    "shared": [0.9078297426751445, 0.06589156342268909],
    "seeds": [-5558213578756953944, -383111775810789494],
    "crop": [46.139, 34.449],
    "flip": [92.323, 87.796],
    "resized-crop": [105.07, 91.316],
    "colour": [70.159, 82.742],
    "erase": [88.237, 81.819],
    "rotate": [92.313, 87.916],
    "simclr": [105.07, 85.01],
}


def test_draws_are_pinned() -> None:
    """A change of these numbers makes stored answers belong to other pixels: raise views.VERSION."""
    index, numbers = torch.tensor([3, 11]), view_number(torch.tensor([1, 2]), torch.tensor([0, 3]))
    draws = Draws(7, index, numbers)
    assert draws.integers("crop.top", 9).tolist() == PINNED["top"]
    assert draws.uniform("flip", shared=True).tolist() == pytest.approx(PINNED["shared"], abs=1e-12)
    assert draws.seeds("randaugment").tolist() == PINNED["seeds"]
    pixels = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8) % 61 / 61
    weights = torch.arange(3 * 8 * 8).reshape(3, 8, 8) / 100
    for name in KINDS.keys() - {"randaugment"}:  # torchvision's own, whose version is part of `describe`
        entry = {"name": name, "probability": 1.0} if "probability" in KINDS[name].model_fields else name
        sums = (Views(7, [entry])(pixels, index, numbers) * weights).sum((1, 2, 3)).tolist()
        assert sums == pytest.approx(PINNED[name], abs=2e-3), name


@pytest.mark.parametrize(
    ("entry", "said", "fix"),
    [
        ("crpo", "no augmentation 'crpo'", "crop"),
        (3, "3 names no augmentation", "padding"),
        ({"padding": 2}, "names no augmentation", "padding"),
        ({"name": "crop", "paddin": 2}, "crop has no option 'paddin'; its options are padding", "padding"),
        ({"name": "rotate", "angle": 2}, "it has no options", "leave angle out"),
        ({"name": "crop", "padding": 0}, "crop has padding = 0; needed: pixels added", "padding = 4"),
        ({"name": "crop", "padding": 2.5}, "a whole number of at least 1", "padding = 4"),
        ({"name": "flip", "probability": 1.5}, "from 0 to 1", "0.5"),
        ({"name": "resized-crop", "scale": [0.5, 0.2]}, "the smaller first", "scale = [0.08, 1.0]"),
        ({"name": "resized-crop", "scale": [0.5, 1.2]}, "up to 1", "scale"),
        ({"name": "resized-crop", "ratio": [0.5]}, "two numbers", "ratio"),
        ({"name": "resized-crop", "ratio": [0.0, 1.0]}, "two numbers above 0", "ratio"),
        ({"name": "colour", "hue": 0.6}, "from 0 to 0.5", "hue = 0.1"),
        ({"name": "colour", "brightness": float("nan")}, "at least 0", "brightness"),
        ({"name": "erase", "fill": "white"}, '"noise" (each value random) or "black"', "noise"),
        ({"name": "randaugment", "magnitude": 31}, "from 0 to 30", "magnitude = 9"),
    ],
)
def test_wrong_entries_are_refused_at_the_door(entry: Any, said: str, fix: str) -> None:
    with pytest.raises(RequestError) as caught:
        Views(0, [entry])
    assert "data.augment" in caught.value.message
    assert said in caught.value.message
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("entry", "pixels", "said"),
    [
        ("rotate", COLOUR, "square pictures; these are 20 x 14"),
        ("colour", COLOUR[:, :2], "grey and colour pictures; these have 2 channels"),
        ("randaugment", COLOUR[:, :2], "these have 2 channels"),
        ("resized-crop", COLOUR.to(torch.uint8), "pixels from 0 to 1; these are torch.uint8"),
        ("erase", COLOUR.to(torch.uint8), "pixels from 0 to 1"),
        ({"name": "crop", "padding": 14, "border": "reflect"}, COLOUR, "cannot mirror 14 pixels"),
    ],
)
def test_pictures_that_an_augmentation_cannot_take(entry: Any, pixels: Tensor, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Views(0, [entry])(pixels, INDEX, view_number(1, 1))


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(RequestError, match="randaugment needs the package torchvision") as caught:
        Views(0, ["randaugment"])
    assert caught.value.fix == 'pip install "limbeck[vision]"'
