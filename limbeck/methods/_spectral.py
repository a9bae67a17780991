"""Parts of UHKD: levels of two networks, what is compared there, and the projections of the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck.adaptors import conv1x1, pool
from limbeck.errors import RequestError
from limbeck.losses import check_finite, spectral_representation, unit_power, widen
from limbeck.losses.spectra import Downsample, Representation
from limbeck.method import Method
from limbeck.methods._layouts import Layout, layouts_of, picture_of

StudentPath = Literal["spectral", "direct"]
Normalise = Literal["none", "rms"]
Kind = Literal["conv", "conv_bn", "mlp"]


@dataclass(frozen=True)
class Tap:
    """One layer of a network at a level.

    Args:
        side: "student" or "teacher".
        layer: its path.
        layout: how its value lies on the picture.
        shape: of its value in the dry batch.
    """

    side: str
    layer: str
    layout: Layout
    shape: Sequence[int]

    @property
    def name(self) -> str:
        """Side and path, as in messages."""
        return f"{self.side} {self.layer}"

    @property
    def sides(self) -> tuple[int, int, int]:
        """Channels, height and width of its map."""
        return self.layout.sides(self.shape, self.name)

    def to_map(self, value: Tensor) -> Tensor:
        """A value as [B, C, H, W]; refuses other channels than those of the dry batch."""
        maps, channels = self.layout.to_map(value, self.name), self.sides[0]
        if maps.shape[1] != channels:
            raise RequestError(
                f"layer {self.name!r} gives {tuple(value.shape)}, {maps.shape[1]} channels; "
                f"the projections were built for {channels}",
                fix="an example batch like those of the training",
            )
        return maps


def taps_of(
    method: Method, layouts: Mapping[str, Mapping[str, str]], example: Any, *, lines: bool = False
) -> dict[str, list[Tap]]:
    """The tapped layers of both networks with their layouts, in the order of taps.

    Args:
        method: with its layers placed.
        layouts: by network and layer, as the user gave them.
        example: one batch.
        lines: of inputs that are no pictures, values with three axes are lines of tokens unless named.
    """
    unknown = [side for side in layouts if side not in method.tapped]
    if unknown:
        raise RequestError(f"layouts of {unknown[0]!r}; needed student and teacher", near=["student"])
    picture = picture_of(method.task.batch(example))
    taps = {}
    for side, layers in method.tapped.items():
        shapes = method.shapes[side]
        sequences = [layer for layer in layers if lines and picture is None and len(shapes[layer]) == 3]
        declared = {**dict.fromkeys(sequences, "line"), **layouts.get(side, {})}
        found = layouts_of(shapes, declared, picture, side)
        taps[side] = [Tap(side, layer, found[layer], shapes[layer]) for layer in layers]
    return taps


@dataclass(frozen=True)
class Level:
    """A student layer with the teacher layer that it learns from.

    Args:
        student: of the student.
        teacher: of the teacher.
        size: rows and columns of the block of frequencies that is compared.
    """

    student: Tap
    teacher: Tap
    size: tuple[int, int]

    @classmethod
    def of(cls, student: Tap, teacher: Tap, block: int | None) -> Level:
        """The level of two layers, its block as large as both maps allow unless given.

        Raises:
            RequestError: the block is larger, or a line of tokens stands against a map.
        """
        lines = [tap.layout.form == "line" for tap in (student, teacher)]
        if lines[0] != lines[1]:
            raise RequestError(
                f"layers {student.name!r} and {teacher.name!r}: a line of tokens has no frequency in "
                "common with a map",
                fix="lines in both networks, or in neither",
            )
        (_, *own), (_, *other) = student.sides, teacher.sides
        most = min(own[1], other[1]) if all(lines) else min(*own, *other)
        if block is not None and not 1 <= block <= most:
            raise RequestError(
                f"block {block} at the layers {student.name!r} ({own[0]} x {own[1]}) and {teacher.name!r} "
                f"({other[0]} x {other[1]}); needed 1 to {most}",
                fix=f"block = {most}, or leave it out",
            )
        side = block or most
        return cls(student, teacher, (1, side) if all(lines) else (side, side))


@dataclass(frozen=True)
class Transform:
    """How maps become what is compared; the readings of `UHKD` under their own names."""

    representation: Representation
    sigma: float | None
    downsample: Downsample
    filter_student: bool
    student_path: StudentPath
    normalise: Normalise
    epsilon: float

    def of_teacher(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """R_t, [B, Ct, rows, columns], without gradient; `complex` has 2 Ct channels."""
        with torch.no_grad():
            return self._finish(self._spectral(maps, size, self.sigma))

    def of_student(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """R_s of projected maps, in the shape of R_t."""
        if self.student_path == "direct":
            return self._finish(pool(widen(maps), size))
        return self._finish(self._spectral(maps, size, self.sigma if self.filter_student else None))

    def _spectral(self, maps: Tensor, size: Sequence[int], sigma: float | None) -> Tensor:
        return spectral_representation(
            maps,
            size,
            representation=self.representation,
            sigma=sigma,
            downsample=self.downsample,
            epsilon=self.epsilon,
        )

    def _finish(self, values: Tensor) -> Tensor:
        return unit_power(values) if self.normalise == "rms" else values


class Projector(nn.Module):
    """A student map in the channels of a teacher map, position by position.

    Args:
        kind: `conv` a 1x1 convolution with bias; `conv_bn` with a batch norm after it; `mlp` two of them with
            GELU between.
        student: Cs, its channels.
        teacher: Ct, channels of the teacher map, and of the hidden map of `mlp`.
        outputs: channels of the result.
    """

    def __init__(self, kind: Kind, student: int, teacher: int, outputs: int) -> None:
        super().__init__()
        if kind == "mlp":
            self.layers = nn.Sequential(conv1x1(student, teacher), nn.GELU(), conv1x1(teacher, outputs))
        else:
            norm = [nn.BatchNorm2d(outputs)] if kind == "conv_bn" else []
            self.layers = nn.Sequential(conv1x1(student, outputs), *norm)
        self.counts_statistics = kind == "conv_bn"

    def forward(self, maps: Tensor) -> Tensor:
        """[B, Cs, H, W] -> [B, outputs, H, W], in the type of the weights.

        Raises:
            RequestError: a batch norm in training that gets one value a channel.
        """
        if self.counts_statistics and self.training and maps[:, 0].numel() == 1:
            raise RequestError(
                f"one value a channel, {tuple(maps.shape)}, enters the batch norm of a projection, so "
                "there are no batch statistics",
                fix='a larger batch, or projector = "conv"',
            )
        projected: Tensor = self.layers(maps.to(next(self.parameters()).dtype))
        return projected


def check_target(target: Tensor, level: Level) -> None:
    """Refuses a spectrum that is not finite, as of teacher features that are not. Reads a value back."""
    check_finite(target, f"features of the teacher at layer {level.teacher.layer!r}")


def share_at_zero(values: Tensor, size: Sequence[int]) -> Tensor:
    """The part, 0 to 1, of the energy of a representation [B, C, rows, columns] at its zero frequency."""
    energy = values.square()
    total = energy.sum()
    zero = energy[:, :, size[0] // 2, size[1] // 2].sum()
    return zero / torch.where(total > 0, total, torch.ones_like(total))
