from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import adaptors
from limbeck.adaptors import adaptor, pool, same_size, tokens_to_map
from limbeck.errors import RequestError


@pytest.mark.parametrize(
    ("student", "teacher", "expected", "kind"),
    [
        ((2, 4), (2, 7), (2, 7), nn.Linear),
        ((2, 4), (9, 4), (2, 4), nn.Identity),
        ((2, 5, 4), (2, 9, 7), (2, 5, 7), nn.Linear),
        ((2, 4, 5, 5), (2, 7, 3, 3), (2, 7, 5, 5), nn.Conv2d),
        ((2, 4, 5, 5), (2, 4, 3, 3), (2, 4, 5, 5), nn.Identity),
        ((2, 17, 4), (2, 7, 3, 3), (2, 7, 4, 4), nn.Sequential),
        ((2, 4, 5, 5), (2, 9, 7), (2, 25, 7), nn.Sequential),
    ],
)
def test_adaptor_gives_the_teachers_channels(student, teacher, expected, kind):
    module = adaptor(student, torch.Size(teacher))
    assert type(module) is kind
    assert module(torch.randn(student)).shape == expected


@pytest.mark.parametrize("shapes", [((2, 4), (2, 7)), ((2, 4, 5, 5), (2, 7, 5, 5))])
@pytest.mark.parametrize("bias", [True, False])
def test_bias(shapes, bias):
    assert (adaptor(*shapes, bias=bias).bias is not None) is bias


def test_convolution_is_a_linear_map_of_channels():
    convolution = adaptors.conv1x1(3, 5)
    value = torch.randn(2, 3, 4, 4)
    expected = (
        torch.einsum("oc,bchw->bohw", convolution.weight[:, :, 0, 0], value) + convolution.bias[:, None, None]
    )
    torch.testing.assert_close(convolution(value), expected)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 4), (2, 7, 3, 3)), ((2, 4, 5), (2, 5)), ((2, 8, 4), (2, 7, 3, 3)), ((2,), (2,))],
)
def test_errors_name_both_shapes(student, teacher):
    with pytest.raises(RequestError) as caught:
        adaptor(student, teacher)
    assert str(student) in str(caught.value)
    assert str(teacher) in str(caught.value)


def test_larger_map_is_pooled_with_overlapping_windows():
    student, teacher = torch.randn(2, 3, 5, 5), torch.randn(2, 7, 3, 3)
    pooled, same = same_size(student, teacher)
    assert same is teacher
    windows = [(0, 2), (1, 4), (3, 5)]  # floor(i * 5 / 3) up to ceil((i + 1) * 5 / 3)
    for i, (top, bottom) in enumerate(windows):
        for j, (left, right) in enumerate(windows):
            expected = student[:, :, top:bottom, left:right].mean((2, 3))
            torch.testing.assert_close(pooled[:, :, i, j], expected)
    assert same_size(teacher, student)[1].shape == (2, 3, 3, 3)


def test_each_dimension_takes_the_smaller():
    student, teacher = same_size(torch.randn(2, 3, 5, 2), torch.randn(2, 3, 3, 4))
    assert student.shape == teacher.shape == (2, 3, 3, 2)


def test_equal_sizes_and_vectors_are_left_alone():
    for shape in ((2, 3, 5, 5), (2, 5, 3), (2, 3)):
        student, teacher = torch.randn(shape), torch.randn(shape)
        assert same_size(student, teacher)[0] is student


def test_tokens_pool_their_grid():
    student, teacher = torch.randn(2, 17, 3), torch.randn(2, 4, 6)
    pooled, _ = same_size(student, teacher)
    expected = pool(student[:, 1:].transpose(1, 2).reshape(2, 3, 4, 4), (2, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize(
    ("tokens", "side"), [(196, 14), (197, 14), (198, 14), (5, 2), (7, 0), (1, 0), (2, 0)]
)
def test_grid(tokens, side):
    assert adaptors.grid(tokens) == side


def test_class_tokens_are_left_out_and_order_is_kept():
    value = torch.arange(10.0).reshape(1, 10, 1)
    assert tokens_to_map(value)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert torch.equal(adaptors.map_to_tokens(tokens_to_map(value)), value[:, 1:])


def test_sizes_that_cannot_be_matched_are_refused():
    with pytest.raises(RequestError, match=r"\(2, 3, 4, 4\) and \(2, 16, 3\)"):
        same_size(torch.randn(2, 3, 4, 4), torch.randn(2, 16, 3))
    with pytest.raises(RequestError, match=r"\(2, 7, 3\) are not a square grid"):
        same_size(torch.randn(2, 7, 3), torch.randn(2, 4, 3))
    with pytest.raises(RequestError, match="cannot be pooled to 5 x 5"):
        pool(torch.randn(2, 3, 4, 4), (5, 5))
