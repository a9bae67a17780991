"""How values of layers become maps."""

from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.methods._layouts import Layout, layouts_of, picture_of


def test_tokens_lie_row_by_row_after_their_prefix() -> None:
    grid = torch.arange(2 * 3 * 2 * 5.0).reshape(2, 3, 2, 5)  # 2 rows, 5 columns
    tokens = torch.cat((torch.full((2, 1, 3), 99.0), grid.flatten(2).transpose(1, 2)), 1)
    assert torch.equal(Layout.parse("blc prefix=1 grid=2x5", "x").to_map(tokens, "x"), grid)
    assert torch.equal(Layout.parse("line prefix=1", "x").to_map(tokens, "x"), grid.reshape(2, 3, 1, 10))
    assert torch.equal(Layout.parse("bhwc", "x").to_map(grid.permute(0, 2, 3, 1), "x"), grid)
    assert Layout.parse("bchw", "x").to_map(grid, "x") is grid
    vector = torch.randn(2, 3)
    assert torch.equal(Layout.parse("bc", "x").to_map(vector, "x"), vector[:, :, None, None])
    square = Layout.parse("blc", "x").to_map(torch.randn(2, 9, 4), "x")
    assert square.shape == (2, 4, 3, 3)


@pytest.mark.parametrize(
    ("shape", "picture", "layout"),
    [
        ((4, 7), None, Layout("bc")),
        ((4, 16, 9, 9), (36, 36), Layout("bchw")),
        ((4, 9, 9, 16), (36, 36), Layout("bhwc")),
        ((4, 8, 8, 8), (8, 8), Layout("bchw")),
        ((4, 7, 7, 8), (28, 28), Layout("bhwc")),
        ((4, 16, 3, 5), (20, 40), Layout("bchw")),
        ((4, 7, 14, 96), (20, 40), Layout("bhwc")),
        ((4, 96, 1, 1), (20, 40), Layout("bchw")),
        ((4, 16, 6), (32, 32), Layout("blc")),
        ((4, 17, 6), (32, 32), Layout("blc", prefix=1)),
        ((4, 18, 6), (32, 32), Layout("blc", prefix=2)),
    ],
)
def test_what_a_shape_can_only_be_need_not_be_named(
    shape: tuple[int, ...], picture: tuple[int, int] | None, layout: Layout
) -> None:
    assert Layout.read_off(shape, picture, "student x") == layout


@pytest.mark.parametrize(
    ("shape", "picture", "words"),
    [
        ((4, 21, 6), (32, 32), "fits no layout of pictures 32 x 32"),  # 4 x 4 after five
        ((4, 17, 6), (32, 64), "fits no layout of pictures 32 x 64"),
        ((4, 17, 6), None, "fits no layout of inputs that are no pictures"),
        ((4, 8, 8, 4), (32, 16), "fits several layouts of pictures 32 x 16"),
        ((4, 5, 6, 7), (32, 32), "fits no layout"),
        ((4, 3, 5, 5), None, "fits no layout of inputs that are no pictures"),
        ((4, 3, 5, 5, 5), (32, 32), "fits no layout"),
        ((4,), (32, 32), "fits no layout"),
    ],
)
def test_what_fits_two_ways_or_none_is_not_guessed(
    shape: tuple[int, ...], picture: tuple[int, int] | None, words: str
) -> None:
    with pytest.raises(RequestError) as caught:
        Layout.read_off(shape, picture, "teacher blocks.3")
    assert f"layer 'teacher blocks.3' gives {shape}" in str(caught.value)
    assert words in str(caught.value)
    assert 'layouts = { teacher = { "blocks.3" = "blc prefix=1 grid=3x5" } }' in caught.value.fix


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bcwh", "there is no form 'bcwh'"),
        ("", "there is no form ''"),
        ("blc prefix", "'prefix' is neither prefix=NUMBER nor grid=ROWSxCOLUMNS"),
        ("blc grid=3", "'grid=3' is neither"),
        ("blc prefix=-1", "the number of tokens before the grid must be at least 0"),
        ("bchw prefix=1", "prefix is for blc and line, grid for blc alone"),
        ("line grid=1x5", "prefix is for blc and line, grid for blc alone"),
    ],
)
def test_layouts_that_are_none_are_refused(text: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        Layout.parse(text, "student layer1")
    assert words in str(caught.value)
    assert f"layout {text!r} of layer 'student layer1'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        ("blc", (2, 17, 3), "17 tokens less 0 before the grid are not 4 x 4"),
        ("blc prefix=1 grid=3x5", (2, 15, 3), "15 tokens less 1 before the grid are not 3 x 5"),
        ("blc prefix=20", (2, 15, 3), "15 tokens less 20"),
        ("line prefix=15", (2, 15, 3), "15 tokens less 15 before the grid are not 1 x 0"),
        ("bchw", (2, 15, 3), r"gives (2, 15, 3); the layout bchw is [B, C, H, W]"),
        ("bhwc", (2, 3), "the layout bhwc is [B, H, W, C]"),
        ("bc", (2, 3, 1, 1), "the layout bc is [B, C]"),
        ("blc", (2, 3, 4, 4), "the layout blc is [B, L, C]"),
    ],
)
def test_values_of_another_form_are_refused(text: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        Layout.parse(text, "x").to_map(torch.zeros(shape), "student layer1")
    assert words in str(caught.value)
    assert "'student layer1'" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
def test_values_that_are_not_real_are_refused(dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(RequestError, match=f"layer 'x' holds {kind}; needed real numbers"):
        Layout("bc").to_map(torch.zeros(2, 3, dtype=dtype), "x")


def test_layers_that_are_not_tapped_have_no_layout() -> None:
    shapes = {"layer1": (4, 3, 8, 8), "layer2": (4, 65, 3)}
    found = layouts_of(shapes, {"layer2": "blc prefix=1 grid=4x16"}, (32, 32), "student")
    assert found == {"layer1": Layout("bchw"), "layer2": Layout("blc", 1, (4, 16))}
    with pytest.raises(RequestError) as caught:
        layouts_of(shapes, {"layr2": "blc"}, (32, 32), "student")
    assert "layouts name 'layr2', which is not tapped in the student" in str(caught.value)
    assert caught.value.near[0] == "layer2"


def test_pictures_are_the_only_inputs_of_four_dimensions() -> None:
    picture = torch.zeros(2, 3, 5, 7)
    assert picture_of({"inputs": picture}) == (5, 7)
    assert picture_of({"inputs": {"pixel_values": picture, "ids": torch.zeros(2, 4)}}) == (5, 7)
    assert picture_of({"inputs": {"left": picture, "right": picture}}) is None
    assert picture_of({"inputs": torch.zeros(2, 4)}) is None
