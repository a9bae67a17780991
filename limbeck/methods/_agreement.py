"""The terms that pull one network to others: on classes, or at the locations of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import (
    bernoulli_divergence,
    check_not_negative,
    check_temperature,
    js_divergence,
    mix_logits,
    reduce_weighted,
    smooth_absolute_error,
    softened_divergence,
)
from limbeck.losses.peers import check_locations, foreground_weight, legacy_divergence
from limbeck.losses.soft import Activation
from limbeck.task import denominator

Peer = Literal["pairs", "ensemble", "js"]
PeerReduction = Literal["mean", "sum"]
Locations = Literal["foreground", "given", "all"]


@dataclass(frozen=True)
class Agreement:
    """Divergences of one network's output from the outputs of others, which are detached.

    Args:
        dense: outputs are a detector's, [B, N, K] or a mapping of `logits` and `boxes`; else logits [B, K].
        peer_temperature: T of the peer term.
        peer, peer_reduction, activation, locations, background, legacy_eps: as in `PeerMutualKD`.
    """

    dense: bool
    peer_temperature: float = 1.0
    peer: Peer = "pairs"
    peer_reduction: PeerReduction = "mean"
    activation: Activation = "softmax"
    locations: Locations = "foreground"
    background: int = 0
    legacy_eps: float = 0.0

    def __post_init__(self) -> None:
        check_temperature(self.peer_temperature)
        check_choice("peer", self.peer, get_args(Peer))
        check_choice("peer_reduction", self.peer_reduction, get_args(PeerReduction))
        check_choice("activation", self.activation, get_args(Activation))
        check_choice("locations", self.locations, get_args(Locations))
        check_not_negative(legacy_eps=self.legacy_eps)
        if self.legacy_eps and (self.dense or self.peer != "pairs" or self.peer_temperature != 1):
            raise RequestError("legacy_eps is for classes, with peer = pairs and peer_temperature = 1")
        if self.dense and self.peer != "pairs" and self.activation == "sigmoid":
            raise RequestError(f'peer = "{self.peer}" compares softmax outputs', fix='peer = "pairs"')

    def divergence(
        self,
        own: Any,
        target: Any,
        temperature: float,
        batch: Mapping[str, Any],
        *,
        symmetric: bool = False,
    ) -> Tensor:
        """T^2 KL(target || own), or Jensen-Shannon; mean over samples, or over the locations that count."""
        student, teacher = logits_of(own), logits_of(target)
        divergence = js_divergence if symmetric else softened_divergence
        if not self.dense:
            count = denominator(batch, "samples", len(student))
            return divergence(student, teacher, temperature, count=count)
        if self.activation == "sigmoid":
            divergence = bernoulli_divergence
        values = divergence(student, teacher, temperature, "none")
        return reduce_weighted(values, self._weight(teacher, batch).to(values.dtype))

    def peers(self, own: Any, peers: Sequence[Any], batch: Mapping[str, Any]) -> Tensor:
        """The peer term of one student, by `peer` and `peer_reduction`."""
        temperature = self.peer_temperature
        if self.peer == "ensemble":
            mixed = mix_logits([logits_of(peer).detach() for peer in peers], temperature)
            return self.divergence(own, mixed, temperature, batch)
        each = torch.stack([self._pair(own, peer, batch) for peer in peers])
        return each.mean() if self.peer_reduction == "mean" else each.sum()

    def _pair(self, own: Any, peer: Any, batch: Mapping[str, Any]) -> Tensor:
        if self.legacy_eps:
            count = denominator(batch, "samples", len(logits_of(own)))
            return legacy_divergence(logits_of(own), logits_of(peer), self.legacy_eps, count=count)
        return self.divergence(own, peer, self.peer_temperature, batch, symmetric=self.peer == "js")

    def boxes(self, own: Any, target: Any, batch: Mapping[str, Any]) -> Tensor:
        """Smooth L1 (beta 1) to the boxes of a target, summed over coordinates; where class terms count."""
        each = 4 * smooth_absolute_error(_boxes(own), _boxes(target), "none")
        return reduce_weighted(each, self._weight(logits_of(target), batch).to(each.dtype))

    def _weight(self, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The weight of each location [B, N] in a term whose targets a network gave."""
        if self.locations == "all":
            return torch.ones_like(target[..., 0])
        if "mask" not in batch:
            raise RequestError(
                f'locations = "{self.locations}" reads batch["mask"], which is missing',
                fix='give a mask [B, N] of the locations assigned to objects, or locations = "all"',
            )
        mask: Tensor = batch["mask"]
        if self.locations == "given":
            check_locations(mask, target)
            return mask
        return foreground_weight(target, mask, activation=self.activation, background=self.background)


def check_choice(name: str, given: object, options: Sequence[object]) -> None:
    """Refuses a value that is not among the options."""
    if given not in options:
        raise RequestError(f"{name} = {given!r}; needed {', '.join(map(str, options))}")


def check_read(settings: object, *rules: tuple[str, object, bool, str]) -> None:
    """Refuses a setting that another one keeps from being read.

    Args:
        settings: has them as attributes.
        rules: the name of one, its usual value, whether it is not read, and what would read it.
    """
    for name, usual, idle, reader in rules:
        if idle and getattr(settings, name) != usual:
            raise RequestError(f"{name} {getattr(settings, name)!r} is only read with {reader}")


def check_outputs(name: str, outputs: Mapping[str, Any]) -> None:
    """Refuses outputs of other classes or locations than a network's, naming both and both numbers."""
    own = logits_of(outputs[name]).shape
    for other, output in outputs.items():
        shape = logits_of(output).shape
        if shape == own:
            continue
        if shape[:-1] == own[:-1]:
            what, one, two = "classes", str(own[-1]), str(shape[-1])
        elif len(shape) == len(own) == 3 and shape[0] == own[0]:
            what, one, two = "locations", str(own[1]), str(shape[1])
        else:
            what, one, two = "shape of output", str(tuple(own)), str(tuple(shape))
        raise RequestError(f"{name} has {what} {one} and {other} {two}; a cohort needs the same {what}")


def logits_of(output: Any) -> Tensor:
    """The class logits of an output: itself, or an entry of a detector's."""
    logits = output.get("logits") if isinstance(output, Mapping) else output
    if not isinstance(logits, Tensor):
        raise RequestError(f"an output of type {type(output).__name__}; needed class logits")
    return logits


def _boxes(output: Any) -> Tensor:
    if not isinstance(output, Mapping) or "boxes" not in output:
        raise RequestError(
            "box = true needs outputs with decoded boxes", fix='{"logits": [B, N, K], "boxes": [B, N, 4]}'
        )
    boxes: Tensor = output["boxes"]
    return boxes
