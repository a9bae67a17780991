"""The auxiliary heads of MHKD: small classifiers on layers of one network, all with the same outputs."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from limbeck._taps.survey import beside, undisturbed
from limbeck.errors import RequestError
from limbeck.losses import widen
from limbeck.methods._layouts import Layout, layouts_of
from limbeck.methods._sequences import valid_positions
from limbeck.task import Task, as_model_type

HeadKind = Literal["conv", "linear"]
HeadInit = Literal["default", "orthogonal"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Port:
    """A layer that has a head, and how the head takes its value.

    Args:
        side: "student" or "teacher".
        layer: its path.
        shape: of its value, as in a dry batch.
        layout: how it lies on the picture, for a head with convolutions; None for a head without.
    """

    side: str
    layer: str
    shape: Sequence[int]
    layout: Layout | None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.side} {self.layer}"

    @property
    def width(self) -> int:
        """Channels of the map, or features of the row, that the head takes."""
        if self.layout is not None:
            return self.layout.sides(self.shape, self.name)[0]
        if len(self.shape) == 4:
            return self.shape[1] * self.shape[2] * self.shape[3]
        return self.shape[-1]

    def read(self, value: Tensor, batch: Mapping[str, Any], *, look: bool) -> Tensor:
        """What the head takes of a value: a map [B, C, H, W], or a row a sample [B, D].

        A head without convolutions takes vectors as they are, maps flattened, of tokens the mean over those
        that are valid.

        Args:
            value: of the layer.
            batch: normal form, with a mask where sequences are padded.
            look: whether samples that are padding alone are looked for, which reads a value back.

        Raises:
            RequestError: another rank or width than the head was built for, or a sample without a token.
        """
        if value.ndim != len(self.shape) or not value.is_floating_point():
            raise self._other(value)
        if self.layout is not None:
            taken = self.layout.to_map(value, self.name)
        elif value.ndim == 3:
            taken = _mean_of_tokens(value, batch, self.layer, look=look)
        else:
            taken = value.flatten(1)
        if taken.shape[1] != self.width:
            raise self._other(value)
        return taken

    def _other(self, value: Tensor) -> RequestError:
        kind = str(value.dtype).removeprefix("torch.")
        return RequestError(
            f"layer {self.name!r} gives {kind} {tuple(value.shape)}; its head was built for real numbers "
            f"{tuple(self.shape)}",
            fix="an example batch like those of the training, or another layer",
        )


def ports_of(
    side: str,
    shapes: Mapping[str, Sequence[int]],
    layers: Sequence[str],
    declared: Mapping[str, str],
    picture: tuple[int, int] | None,
    kind: HeadKind,
) -> list[Port]:
    """The ports of one network, in the order of its taps.

    Args:
        side: "student" or "teacher".
        shapes: of a dry batch, by layer.
        layers: the tapped ones.
        declared: layouts by layer, as `Layout.parse` reads them.
        picture: height and width of the inputs, None where they are no pictures.
        kind: of head.

    Raises:
        RequestError: a layer that such a head cannot take.
    """
    if kind == "linear":
        for layer in layers:
            if len(shapes[layer]) not in (2, 3, 4):
                raise RequestError(
                    f"layer {side + ' ' + layer!r} gives {tuple(shapes[layer])}; a linear head takes [B, D], "
                    "[B, L, D] or [B, C, H, W]",
                    fix="tap another layer",
                )
        return [Port(side, layer, shapes[layer], None) for layer in layers]
    for layer in layers:
        _check_place(side, layer, shapes[layer], declared.get(layer), picture)
    layouts = layouts_of(shapes, declared, picture, side)
    return [Port(side, layer, shapes[layer], layouts[layer]) for layer in layers]


def _check_place(
    side: str, layer: str, shape: Sequence[int], declared: str | None, picture: tuple[int, int] | None
) -> None:
    """Refuses what is no map: convolutions slide over places."""
    rows = len(shape) == 2 or (len(shape) == 3 and picture is None and declared is None)
    if rows or (declared or "").split(" ")[0] in ("bc", "line"):
        what = "a vector" if len(shape) == 2 else "a sequence"
        raise RequestError(
            f"layer {side + ' ' + layer!r} gives {tuple(shape)}, {what}; a head with convolutions needs "
            "a map [B, C, H, W], or tokens on the grid of a picture",
            fix='head = "linear", or tap a layer with a map',
        )


class Head(nn.Module):
    """From the value of one layer to K outputs.

    Args:
        port: its layer.
        width: of the convolutions and of the Linear layers but the last.
        num_linear: number of Linear layers.
        outputs: K.
    """

    def __init__(self, port: Port, width: int, num_linear: int, outputs: int) -> None:
        super().__init__()
        self.port = port
        if port.layout is None:
            self.layers = nn.Sequential(*_linear_layers(port.width, width, num_linear, outputs))
        else:
            self.layers = nn.Sequential(
                *_convolution(port.width, width),
                *_convolution(width, width),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                *_linear_layers(width, width, num_linear, outputs),
            )

    def forward(self, taken: Tensor) -> Tensor:
        """[B, C, H, W] or [B, D], as the port reads it, to outputs [B, K].

        Raises:
            RequestError: a batch norm in training would get one value a channel.
        """
        if self.training and taken.ndim == 4 and taken.numel() == taken.shape[1]:
            raise RequestError(
                f"the head on layer {self.port.name!r} gets one sample of a single cell, of which no batch "
                "statistics can be taken",
                fix="a batch of at least 2 samples (DataLoader(..., drop_last=True)), or an earlier layer",
            )
        outputs: Tensor = self.layers(as_model_type(self.layers, taken))
        return outputs

    def orthogonal(self) -> None:
        """Draws the weights of the Linear layers anew as orthogonal matrices; biases stay."""
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight)


class Branches(nn.Module):
    """The heads of one network.

    Args:
        ports: their layers.
        width: see `Head`.
        num_linear: see `Head`.
        outputs: K.
        init: `orthogonal` for the weights of Linear layers, or torch's `default`.

    Attributes:
        trained: whether they took a step by themselves; a part of the state.
    """

    trained: Tensor

    def __init__(
        self, ports: Sequence[Port], width: int, num_linear: int, outputs: int, init: HeadInit
    ) -> None:
        super().__init__()
        self.ports = list(ports)
        self.heads = nn.ModuleList(Head(port, width, num_linear, outputs) for port in ports)
        self.register_buffer("trained", torch.tensor(False))
        if init == "orthogonal":
            for head in self.each():
                head.orthogonal()

    def each(self) -> list[Head]:
        """The heads, from input to output."""
        return [cast(Head, head) for head in self.heads]

    def forward(self, values: Mapping[str, Tensor], batch: Mapping[str, Any], *, look: bool) -> list[Tensor]:
        """The outputs [B, K] of every head.

        Args:
            values: of the layers, by path.
            batch: normal form.
            look: see `Port.read`.
        """
        return [head(head.port.read(values[head.port.layer], batch, look=look)) for head in self.each()]


def number_of_outputs(network: nn.Module, batch: Mapping[str, Any], task: Task) -> int:
    """K of a network, by a pass on some samples that leaves it as it was.

    Raises:
        RequestError: its output is not [B, K].
    """
    with undisturbed(network, training=False) as plain:
        output = task.call(plain, beside(plain, batch))
    if output.ndim != 2:
        raise RequestError(f"an output {tuple(output.shape)} of {type(network).__name__}; needed [B, K]")
    return int(output.shape[1])


def accuracies(
    name: str, outputs: Sequence[Tensor], batch: Mapping[str, Any], task: Task
) -> dict[str, Tensor]:
    """`NAME_accuracy` [L]: the part of the labelled samples whose class each head names; 0 without any.

    Nothing where the outputs are no classes, or the samples are mixed.
    """
    targets = batch.get("targets")
    if task.kind != "classes" or targets is None or "mixed" in batch:
        return {}
    labelled = task.labelled(targets)
    right = torch.stack([(each.argmax(1) == targets) & labelled for each in outputs]).sum(1)
    return {f"{name}_accuracy": right / labelled.sum().clamp(min=1)}


def drawn(chances: Sequence[float], seed: int, progress: float) -> list[bool]:
    """Which heads are kept in a step, the first where none would be.

    Args:
        chances: of each to be left out, 0 to 1.
        seed: of the run.
        progress: of the loop, which differs from step to step and not between processes.
    """
    draw = random.Random(f"{seed} {float(progress)!r}")
    kept = [draw.random() >= chance for chance in chances]
    return kept if any(kept) else [number == 0 for number in range(len(kept))]


def say_what_heads_cost(student: nn.Module, *branches: Branches | None) -> None:
    """Heads can be larger than a small student; they cost time in training alone."""
    own = sum(value.numel() for value in student.parameters())
    heads = sum(value.numel() for each in branches if each is not None for value in each.parameters())
    if heads > own:
        _log.info(
            "the heads of mhkd have %s parameters, the student %s: training takes longer for them; "
            "a smaller width is cheaper",
            f"{heads:,}",
            f"{own:,}",
        )


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def _linear_layers(inputs: int, width: int, number: int, outputs: int) -> list[nn.Module]:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for _ in range(number - 1):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return [*layers, nn.Linear(inputs, outputs)]


def _mean_of_tokens(value: Tensor, batch: Mapping[str, Any], layer: str, *, look: bool) -> Tensor:
    """The mean over the valid tokens of each sample, [B, L, D] -> [B, D], in float32 or wider."""
    mask = valid_positions(batch, value, layer)
    if mask is None:
        return widen(value).mean(1)
    lengths = mask.sum(1, keepdim=True)
    if look and bool((lengths == 0).any()):
        raise RequestError(
            f"sample {int((lengths == 0).nonzero()[0, 0])} of a batch is padding alone, so layer {layer!r} "
            "has no mean of it",
            fix="leave empty texts out",
        )
    return widen(value).masked_fill(~mask.unsqueeze(2), 0).sum(1) / lengths.clamp(min=1)
