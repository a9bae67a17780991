"""Heads of UniKD on both networks, and the noise of their samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from limbeck.data import counter
from limbeck.errors import RequestError
from limbeck.losses import check_finite
from limbeck.methods._cross_layers import same_number
from limbeck.methods._spectral import Tap
from limbeck.methods._unified import Fusion, Gaussian, Prediction, Regressor, Size, map_of, size_of
from limbeck.record import Record

TeacherFeature = Literal["aff", "first_stage", "last_stage"]
_BOUND = 10.0  # of log variances, where they are clamped


class Said(NamedTuple):
    """What the heads make of a batch.

    Args:
        maps: of student and teacher, [B, C, H, W] each, C the same.
        student, teacher: the Gaussians that are predicted from them; None without predictions.
    """

    maps: tuple[Tensor, Tensor]
    student: Gaussian | None
    teacher: Gaussian | None


@dataclass(frozen=True)
class Plan:
    """What heads are built of.

    Args:
        teacher_feature: as in `UniKD`.
        width: K of the Gaussians; None for no predictions.
        variance: the Gaussians have a log variance.
        clamp: it is kept within -10..10.
        max_channels: the most hidden channels of a fusion.
        sizes: of each level, deepest first; None for the teacher's.
    """

    teacher_feature: TeacherFeature
    width: int | None
    variance: bool
    clamp: bool
    max_channels: int
    sizes: Sequence[int | Sequence[int]] | None


class Heads(nn.Module):
    """What trains beside the student: fusions and predictions.

    Args:
        levels: layers by network, shallow to deep, one a level.
        plan: what is built.
    """

    def __init__(self, levels: Mapping[str, Sequence[Tap]], plan: Plan) -> None:
        super().__init__()
        # Deepest first; of the teacher those that are read.
        self.student_levels, deepest_first = ([*reversed(levels[side])] for side in ("student", "teacher"))
        self.teacher_levels = deepest_first if plan.teacher_feature == "aff" else deepest_first[-1:]
        channels, other = ([tap.sides[0] for tap in taps] for taps in (self.student_levels, deepest_first))
        sizes = _sizes(plan.sizes, deepest_first)
        middle = min(plan.max_channels, channels[0])
        self.teacher_fusion: Fusion | None = None
        self.fusion: Fusion | Regressor
        if plan.teacher_feature == "last_stage":
            self.fusion = Regressor(channels[-1], other[-1])
        else:
            self.fusion = Fusion(channels, middle, other[-1], sizes)
            if plan.teacher_feature == "aff":
                self.teacher_fusion = Fusion(other, middle, other[-1], sizes)
        bound = _BOUND if plan.clamp else None
        self.prediction, self.teacher_prediction = (
            None
            if plan.width is None or (shared and plan.teacher_feature == "last_stage")
            else Prediction(other[-1], plan.width, variance=plan.variance, bound=bound)
            for shared in (False, True)
        )

    def forward(self, student: Record, teacher: Record, batch: Mapping[str, Any], *, look: bool) -> Said:
        """The maps and Gaussians of a batch, in float32 or wider whatever the precision of the networks.

        Args:
            student: values at its levels.
            teacher: likewise.
            batch: normal form.
            look: refuse features of the teacher and log variances that are not finite; reads values back.
        """
        own = [map_of(tap, student[tap.layer], batch) for tap in self.student_levels]
        other = [map_of(tap, teacher[tap.layer], batch) for tap in self.teacher_levels]
        names = [tap.name for tap in (*self.student_levels, *self.teacher_levels)]
        same_number(dict(zip(names, [*own, *other], strict=True)))
        for tap, value in zip(self.teacher_levels, other, strict=True):
            if look:
                check_finite(value, f"features of the teacher at layer {tap.layer!r}")
        fused = self.fusion(own)
        target = other[-1] if self.teacher_fusion is None else self.teacher_fusion(other)
        if self.prediction is None:
            return Said((fused, target), None, None)
        one, two = self.prediction(fused), (self.teacher_prediction or self.prediction)(target)
        for side, said in (("student", one), ("teacher", two)):
            if look and said.log_variance is not None:
                check_finite(said.log_variance, f"log variances of the {side}", "clamp_log_variance = true")
        return Said((fused, target), one, two)


class Noise(nn.Module):
    """Standard normal noise for the samples of both networks, new in every epoch.

    It belongs to a sample, so a batch may be cut into micro-batches or over processes. In the state is the
    seed alone, drawn at construction.

    Attributes:
        generator: draws all noise where it is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None
        self.register_buffer("seed", torch.randint(2**62, ()))

    def forward(self, side: str, batch: Mapping[str, Any], like: Tensor, epoch: int | None) -> Tensor:
        """The noise of one network, in the shape and type of its mean.

        Args:
            side: "student" or "teacher", which are drawn apart.
            batch: normal form; `noise` of it is taken as it is.
            like: the mean, [B, K].
            epoch: from 1; None, or a batch without `index`: drawn by torch.

        Raises:
            RequestError: noise is given in another shape.
        """
        given = batch.get("noise")
        if given is not None:
            return _checked(given, side, like)
        if self.generator is not None:
            drawn = torch.randn(like.shape, generator=self.generator, device=self.generator.device)
        elif epoch is None or batch.get("index") is None:
            drawn = torch.randn_like(like)
        else:
            drawn = self._by_sample(side, batch, like.shape[1], epoch)
        return drawn.to(like)

    def _by_sample(self, side: str, batch: Mapping[str, Any], width: int, epoch: int) -> Tensor:
        index = batch["index"]
        view = torch.as_tensor(batch.get("view", 0), device=index.device)
        assert isinstance(self.seed, Tensor)
        key = counter.bits(self.seed.to(index.device), epoch, side, index, view)[:, None]
        columns = torch.arange(width, device=index.device)
        radius, angle = (counter.uniform(key, name, columns) for name in ("radius", "angle"))
        # Box and Muller 1958.
        return torch.sqrt(-2 * torch.log1p(-radius)) * torch.cos(2 * math.pi * angle)


def _checked(given: Mapping[str, Tensor], side: str, like: Tensor) -> Tensor:
    noise = given.get(side) if isinstance(given, Mapping) else None
    if noise is None or noise.shape != like.shape:
        shape = "none" if noise is None else str(tuple(noise.shape))
        raise RequestError(
            f"the batch gives noise {shape} for the {side}; needed {tuple(like.shape)}, a value for each "
            "sample and class",
            fix='batch["noise"] = {"student": [B, K], "teacher": [B, K]}',
        )
    return noise.to(like)


def _sizes(given: Sequence[int | Sequence[int]] | None, levels: Sequence[Tap]) -> list[Size]:
    """Height and width of each level, deepest first."""
    if given is None:
        return [size_of(tap) for tap in levels]
    sizes = [(each, each) if isinstance(each, int) else tuple(each) for each in given]
    if len(sizes) != len(levels):
        raise RequestError(
            f"sizes {list(given)} for {len(levels)} levels; needed one for each level, deepest first"
        )
    for size in sizes:
        if len(size) != 2 or min(size) < 1:
            raise RequestError(
                f"sizes {list(given)}; needed a side >= 1, or a height and a width, for each level"
            )
    return [(height, width) for height, width in sizes]
