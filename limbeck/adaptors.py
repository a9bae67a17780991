"""Small trainable maps between the values of two networks. No method logic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError


def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """[B, in] -> [B, out], [B, L, in] -> [B, L, out]."""
    return nn.Linear(in_features, out_features, bias=bias)


def conv1x1(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    """[B, in, H, W] -> [B, out, H, W]: a linear map of the channels at every position."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=bias)


def adaptor(student_shape: Sequence[int], teacher_shape: Sequence[int], *, bias: bool = True) -> nn.Module:
    """A module that gives a student's value the channels of its teacher's.

    Only channels change: maps of unlike height and width are brought together by `same_size`. Between a map
    [B, C, H, W] and tokens [B, L, D] the student's value takes the teacher's form first.

    Args:
        student_shape: [B, D], [B, L, D] or [B, C, H, W], as from a dry batch.
        teacher_shape: likewise; its batch size does not matter.
        bias: of the linear map.

    Returns:
        A linear map or a 1x1 convolution; the identity where channels agree.

    Raises:
        RequestError: there is no such map between these shapes.
    """
    student, teacher = tuple(student_shape), tuple(teacher_shape)
    forms = (len(student), len(teacher))
    if forms in ((2, 2), (3, 3)):
        return nn.Identity() if student[-1] == teacher[-1] else linear(student[-1], teacher[-1], bias=bias)
    if forms == (4, 4):
        return nn.Identity() if student[1] == teacher[1] else conv1x1(student[1], teacher[1], bias=bias)
    if forms == (3, 4) and grid(student[1]):
        return nn.Sequential(TokensToMap(), adaptor((1, student[2], 1, 1), teacher, bias=bias))
    if forms == (4, 3):
        return nn.Sequential(MapToTokens(), adaptor((1, 1, student[1]), teacher, bias=bias))
    raise RequestError(
        f"no adaptor from a student value {student} to a teacher value {teacher}; "
        "needed [B, D] and [B, D], or tokens [B, L, D] and maps [B, C, H, W]",
        fix="pair layers of like form in taps",
    )


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Brings two values to one spatial size: the larger one is pooled, each dimension by itself.

    Adaptive average pooling; windows overlap where sizes do not divide (5 -> 3). Maps pool height and width.
    Tokens of unlike number pool their grid; a class token before it is left out.

    Args:
        student: [B, C, H, W] or [B, L, D].
        teacher: the same form; channels may differ.

    Returns:
        Both, at the smaller size; unchanged where they agree.

    Raises:
        RequestError: forms differ, or tokens are not a square grid.
    """
    if student.ndim != teacher.ndim or student.ndim not in (2, 3, 4):
        raise RequestError(
            f"values {tuple(student.shape)} and {tuple(teacher.shape)} have no common size; "
            "needed two maps [B, C, H, W] or two rows of tokens [B, L, D]",
            fix="put limbeck.adaptors.adaptor between them, or pair layers of like form",
        )
    if student.ndim == 3 and student.shape[1] != teacher.shape[1]:
        student, teacher = same_size(tokens_to_map(student), tokens_to_map(teacher))
        return map_to_tokens(student), map_to_tokens(teacher)
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return pool(student, size), pool(teacher, size)


def pool(value: Tensor, size: Sequence[int]) -> Tensor:
    """[B, C, H, W] -> [B, C, *size] by averages over windows that overlap where sizes do not divide.

    Raises:
        RequestError: the size is larger than the map.
    """
    height, width = size
    if value.ndim != 4 or height > value.shape[2] or width > value.shape[3]:
        raise RequestError(f"a value {tuple(value.shape)} cannot be pooled to {height} x {width}")
    return (
        value if tuple(value.shape[2:]) == (height, width) else F.adaptive_avg_pool2d(value, (height, width))
    )


def grid(tokens: int) -> int:
    """The side of the square grid in a row of tokens, after at most two class tokens; 0 if there is none."""
    for extra in (0, 1, 2):
        side = math.isqrt(max(tokens - extra, 0))
        if side > 1 and side * side == tokens - extra:
            return side
    return 0


def tokens_to_map(value: Tensor) -> Tensor:
    """[B, L, D] -> [B, D, side, side], row by row; class tokens before the grid are left out.

    Raises:
        RequestError: the tokens are not a square grid, with none, one or two class tokens before it.
    """
    side = grid(value.shape[1])
    if not side:
        raise RequestError(
            f"tokens {tuple(value.shape)} are not a square grid after at most two class tokens",
            fix="pair layers with equally many tokens",
        )
    cells = value[:, value.shape[1] - side * side :].transpose(1, 2)
    return cells.reshape(*cells.shape[:2], side, side)


def map_to_tokens(value: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H * W, C], row by row."""
    return value.flatten(2).transpose(1, 2)


class TokensToMap(nn.Module):
    """`tokens_to_map` as a module."""

    def forward(self, value: Tensor) -> Tensor:
        """[B, L, D] -> [B, D, side, side]."""
        return tokens_to_map(value)


class MapToTokens(nn.Module):
    """`map_to_tokens` as a module."""

    def forward(self, value: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, H * W, C]."""
        return map_to_tokens(value)
