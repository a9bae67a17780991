from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.data.augment import augment_of
from limbeck.data.augmentations import AUGMENTATIONS
from limbeck.data.dataset import ArrayDataset
from limbeck.data.views import PLACE, VERSION, Draws, Views, split_view, view_number
from limbeck.errors import RequestError

PADDING = 4
PIXELS = torch.rand(64, 3, 12, 10)
INDEX = torch.arange(64) * 3 + 5


def test_view_zero_is_the_picture_itself() -> None:
    assert torch.equal(Views(0, ["crop", "flip"])(PIXELS, INDEX, 0), PIXELS)


def test_without_augmentation_every_view_is_the_picture() -> None:
    assert torch.equal(Views(0, [])(PIXELS, INDEX, 7), PIXELS)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_same_for_any_cutting_and_order(size: int) -> None:
    views = Views(1, ["crop", "flip"])
    whole = views(PIXELS, INDEX, 3)
    order = torch.randperm(64)
    for part in order.split(size):
        assert torch.equal(views(PIXELS[part], INDEX[part], 3), whole[part])


def test_views_of_several_numbers_in_one_batch() -> None:
    views = Views(1, ["crop", "flip"])
    numbers = torch.arange(64) % 3
    mixed = views(PIXELS, INDEX, numbers)
    for view in range(3):
        assert torch.equal(mixed[numbers == view], views(PIXELS, INDEX, view)[numbers == view])


def test_views_differ_by_sample_view_and_seed() -> None:
    same = PIXELS[:1].expand(64, -1, -1, -1)
    drawn = Views(0, ["crop", "flip"])(same, INDEX, 1)
    assert len(drawn.flatten(1).unique(dim=0)) > 30
    assert not torch.equal(drawn, Views(0, ["crop", "flip"])(same, INDEX, 2))
    assert not torch.equal(drawn, Views(1, ["crop", "flip"])(same, INDEX, 1))


def test_crop_equals_a_plain_one() -> None:
    drawn = Views(4, ["crop"])(PIXELS, INDEX, 2)
    draws = Draws(4, INDEX, torch.full((64,), 2))
    tops = draws.integers("crop.top", 2 * PADDING + 1)
    lefts = draws.integers("crop.left", 2 * PADDING + 1)
    for i in range(64):
        padded = torch.zeros(3, 12 + 2 * PADDING, 10 + 2 * PADDING)
        padded[:, PADDING : PADDING + 12, PADDING : PADDING + 10] = PIXELS[i]
        top, left = int(tops[i]), int(lefts[i])
        assert torch.equal(drawn[i], padded[:, top : top + 12, left : left + 10])


def test_statistics_are_those_of_an_ordinary_random_one() -> None:
    draws = Draws(0, torch.arange(9000), 1)
    for name in ("crop.top", "crop.left"):
        counts = torch.bincount(draws.integers(name, 9), minlength=9)
        chi_square = float(((counts - 1000.0) ** 2 / 1000).sum())
        assert chi_square < 26.1  # 8 degrees of freedom, 99.9 %
    marked = torch.zeros(9000, 1, 1, 2)
    marked[..., 0] = 1
    flipped = Views(0, ["flip"])(marked, torch.arange(9000), 1)[..., 1].mean()
    assert abs(float(flipped) - 0.5) < 3.3 * 0.5 / 9000**0.5


def test_one_augmentation_does_not_change_the_draws_of_another() -> None:
    both = Views(0, ["flip", "crop"])(PIXELS, INDEX, 1)
    cropped_after = AUGMENTATIONS["crop"](
        Views(0, ["flip"])(PIXELS, INDEX, 1), Draws(0, INDEX, 1), augment_of("crop")
    )
    assert torch.equal(both, cropped_after)


def test_works_on_bytes_as_on_floats() -> None:
    pixels = torch.randint(0, 256, (8, 1, 9, 9), dtype=torch.uint8)
    views = Views(0, ["crop", "flip"])
    assert torch.equal(views(pixels, INDEX[:8], 1).float(), views(pixels.float(), INDEX[:8], 1))


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    Views(0, ["crop", "flip"])(PIXELS, INDEX, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("names", [["crpo"], ["crop", "crop"]])
def test_wrong_names_are_refused(names: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        Views(0, names)
    assert "crop" in str(caught.value)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(RequestError, match="is for pictures"):
        ArrayDataset(torch.rand(4, 5)).augment(Views(0, ["flip"]))


def test_view_numbers_hold_view_and_place() -> None:
    assert view_number(5, 0) == 5
    assert view_number(5, 3) == 5 + 3 * PLACE
    assert split_view(view_number(5, 3)) == (5, 3)
    numbers = view_number(torch.arange(4), torch.tensor([0, 1, 2, 3]))
    views, places = split_view(numbers)
    assert views.tolist() == places.tolist() == [0, 1, 2, 3]


def test_places_share_the_flip_and_crop_each_anew() -> None:
    same = torch.rand(1, 3, 12, 12).expand(64, -1, -1, -1)
    flipped = [Views(0, ["flip"])(same, INDEX, view_number(2, place)) for place in range(4)]
    assert all(torch.equal(flipped[0], other) for other in flipped)
    assert torch.equal(flipped[0], Views(0, ["flip"])(same, INDEX, 2))
    for name in ("crop", "resized-crop", "colour", {"name": "erase", "probability": 1.0}):
        shown = [Views(0, [name])(same, INDEX, view_number(2, place)) for place in range(3)]
        assert torch.equal(shown[0], Views(0, [name])(same, INDEX, 2))
        assert not torch.equal(shown[0], shown[1])
        assert not torch.equal(shown[1], shown[2])


@pytest.mark.parametrize("view", [0, 3])
def test_rotate_turns_by_the_place(view: int) -> None:
    pixels = torch.rand(64, 3, 12, 12)
    places = torch.arange(64) % 5
    turned = Views(0, ["rotate"])(pixels, INDEX, view_number(view, places))
    for row in range(64):
        assert torch.equal(turned[row], pixels[row].rot90(int(places[row]), (1, 2)))


def test_the_first_view_is_turned_but_not_augmented() -> None:
    pixels, views = torch.rand(64, 3, 12, 12), Views(0, ["crop", "rotate", "flip", "colour"])
    for place in range(4):
        assert torch.equal(views(pixels, INDEX, view_number(0, place)), pixels.rot90(place, (2, 3)))
    mixed = view_number(torch.arange(64) % 2, torch.arange(64) % 4)
    shown = views(pixels, INDEX, mixed)
    for row in range(64):
        alone = views(pixels[row : row + 1], INDEX[row : row + 1], int(mixed[row]))
        assert torch.equal(shown[row], alone[0])
    turned = views(pixels, INDEX, view_number(1, 2))
    once = Views(0, ["crop"])(pixels, INDEX, view_number(1, 2)).rot90(2, (2, 3))
    once = Views(0, ["flip", "colour"])(once, INDEX, view_number(1, 2))
    assert torch.equal(turned, once)


def test_whether_anything_is_drawn() -> None:
    assert not Views(0, []).drawn
    assert not Views(0, ["rotate"]).drawn
    assert Views(0, ["rotate", "flip"]).drawn


def test_no_view_is_below_0() -> None:
    with pytest.raises(RequestError, match="no view below 0"):
        Views(0, ["flip"])(PIXELS, INDEX, -1)


def test_the_description_holds_all_that_pixels_depend_on() -> None:
    given: list[list[Any]] = [
        [],
        ["crop"],
        ["flip"],
        ["crop", "flip"],
        ["flip", "crop"],
        [{"name": "crop", "padding": 2}],
        [{"name": "crop", "border": "reflect"}],
        ["randaugment"],
    ]
    described = [Views(0, entries).describe() for entries in given]
    assert len(set(described)) == len(given)
    assert Views(1, ["crop"]).describe() != Views(0, ["crop"]).describe()
    assert all(f"views {VERSION}" in text for text in described)
    assert "torchvision 0." in described[-1]
    assert Views(0, ["crop"]).describe() == Views(0, [{"name": "crop", "padding": 4}]).describe()
    assert Views(0, [{"name": "resized-crop", "scale": (0.5, 1)}]).describe() == (
        f"views {VERSION}, seed 0, resized-crop(scale=[0.5, 1.0], ratio=[{3 / 4}, {4 / 3}])"
    )
