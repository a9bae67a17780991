"""Parts of SemCKD: maps of layers, their similarities, the attention over teacher layers, the projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses import feature_error, widen


class Map(NamedTuple):
    """The values of one layer, channels first.

    Args:
        layer: its path.
        value: [n, C, H, W], or [n, C, L] of sequences.
        mask: [n, L], true where a position is not padding; None: all are valid.
    """

    layer: str
    value: Tensor
    mask: Tensor | None = None

    def pooled(self, size: Sequence[int]) -> Map:
        """The map averaged to a size, over valid positions alone; windows may overlap (5 to 3)."""
        if self.value.shape[2:] == tuple(size):
            return self
        if self.value.ndim == 4:
            height, width = size
            return self._replace(value=F.adaptive_avg_pool2d(self.value, (height, width)))
        value = F.adaptive_avg_pool1d(self.value, size[0])
        if self.mask is None:
            return self._replace(value=value)
        valid = F.adaptive_avg_pool1d(self.mask.unsqueeze(1).to(value.dtype), size[0])
        return self._replace(value=value / valid.where(valid > 0, 1), mask=valid.squeeze(1) > 0)


def similarity(value: Tensor) -> Tensor:
    """How a layer sees a batch: X X^T with X the map as [n, C*H*W], not normalised.

    Entries of 1e5 are usual, too much for half precision: computed in float32 or wider, autocast or not.

    Args:
        value: [n, ...].

    Returns:
        [n, n].
    """
    with torch.autocast(value.device.type, enabled=False):
        rows = widen(value).flatten(1)
        return rows @ rows.T


class Embedding(nn.Module):
    """Rows of a similarity matrix as unit vectors: Linear(b, 2d), ReLU, Linear(2d, d), divided by the norm.

    Args:
        batch: b, the width of the similarity matrix.
        width: d.
    """

    def __init__(self, batch: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(batch, 2 * width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, similarities: Tensor) -> Tensor:
        """[n, b] -> [n, d], each row of length 1 (a row of zeros stays 0)."""
        values = self.out(F.relu(self.hidden(similarities.to(self.hidden.weight.dtype))))
        return F.normalize(values, dim=1, eps=1e-12)


class Association(nn.Module):
    """How much each student layer learns from each teacher layer, sample by sample.

    Args:
        students: S, the number of student layers; each has a query network.
        teachers: T, the number of teacher layers; each has a key network.
        batch: b, the most samples in a batch.
        width: d, of queries and keys.
    """

    def __init__(self, students: int, teachers: int, batch: int, width: int) -> None:
        super().__init__()
        self.batch = batch
        self.queries = nn.ModuleList(Embedding(batch, width) for _ in range(students))
        self.keys = nn.ModuleList(Embedding(batch, width) for _ in range(teachers))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
        """The attention: softmax over the teacher layers of energies / temperature.

        Args:
            student: a similarity matrix [n, n] a student layer, n <= b; a smaller one gets zero columns.
            teacher: the same of the teacher layers.
            temperature: > 0.

        Returns:
            [n, S, T]; sums to 1 over T.
        """
        with torch.autocast(student[0].device.type, enabled=False):
            return torch.softmax(widen(self.energies(student, teacher)) / temperature, dim=2)

    def energies(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Queries times keys, [n, S, T], between -1 and 1."""
        queries, keys = self.embedded(self.queries, student), self.embedded(self.keys, teacher)
        return torch.einsum("nid,njd->nij", queries, keys)

    def embedded(self, networks: nn.ModuleList, similarities: Sequence[Tensor]) -> Tensor:
        """Queries or keys of all layers of a side, [n, S or T, d]."""
        missing = self.batch - len(similarities[0])
        each = zip(networks, similarities, strict=True)
        return torch.stack([network(F.pad(matrix, (0, missing))) for network, matrix in each], 1)


class Projection(nn.Module):
    """A student map in the channels of a teacher map: convolutions 1, 3, 1, the first two with BN and ReLU.

    Args:
        student: Cs, channels of the student map.
        teacher: Ct, channels of the teacher map; between them are 2 Ct.
        dimensions: 2 for maps [n, C, H, W], 1 for sequences [n, C, L].
    """

    def __init__(self, student: int, teacher: int, dimensions: int) -> None:
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if dimensions == 2 else (nn.Conv1d, nn.BatchNorm1d)
        middle = 2 * teacher
        self.layers = nn.Sequential(
            convolution(student, middle, 1, bias=False),
            norm(middle),
            nn.ReLU(inplace=True),
            convolution(middle, middle, 3, padding=1, bias=False),
            norm(middle),
            nn.ReLU(inplace=True),
            convolution(middle, teacher, 1, bias=False),
        )

    def forward(self, value: Tensor) -> Tensor:
        """[n, Cs, ...] -> [n, Ct, ...]; the value takes the type of the weights, unless autocast chooses."""
        if not torch.is_autocast_enabled(value.device.type):
            value = value.to(next(self.parameters()).dtype)
        projected: Tensor = self.layers(value)
        return projected


def match(projection: nn.Module, student: Map, teacher: Map) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both maps of a pair in one shape: averaged to the smaller size, the student's then projected.

    Args:
        projection: of this pair, from Cs to Ct channels.
        student: [n, Cs, ...].
        teacher: [n, Ct, ...].

    Returns:
        Two values [n, Ct, ...], and the positions [n, L] that count; None: all.
    """
    size = [min(sizes) for sizes in zip(student.value.shape[2:], teacher.value.shape[2:], strict=True)]
    own, target = student.pooled(size), teacher.pooled(size)
    if projection.training and own.value[:, 0].numel() == 1:
        raise RequestError(
            f"one value a channel, {tuple(own.value.shape)}, enters the projection of layer {own.layer!r} to "
            f"{target.layer!r}, so there are no batch statistics",
            fix="a larger batch, or layers of a higher resolution",
        )
    masks = [each.mask for each in (own, target) if each.mask is not None]
    return projection(own.value), target.value, torch.stack(masks).all(0) if masks else None


def pair_error(projection: nn.Module, student: Map, teacher: Map) -> Tensor:
    """The mean squared error of a pair, sample by sample, [n]; over the positions that count."""
    projected, target, mask = match(projection, student, teacher)
    if projected.ndim == 3:  # sequences again as [n, L, C]
        projected, target = projected.transpose(1, 2), target.transpose(1, 2)
    return feature_error(projected, target, "none", mask=mask)


def same_number(values: Mapping[str, Tensor]) -> int:
    """The number of samples of all values, by the names of their layers; refuses different ones."""
    sizes = {name: len(value) for name, value in values.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise RequestError(f"the layers have different numbers of samples: {shown}")
    return next(iter(sizes.values()))


def notes_of(attention: Tensor, errors: Tensor) -> dict[str, Tensor]:
    """What is shown of attention [n, S, T] and errors [n, S, T] of a batch: means over samples, entropy."""
    attention, errors = attention.detach(), errors.detach()
    return {
        "attention": attention.mean(0),
        "attention_entropy": torch.special.entr(attention).sum(2).mean(),
        "pair_error": errors.mean(0),
    }
