"""A linear embedding before a student's classifier, of the teacher's width, that folds away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from limbeck._taps.paths import plain
from limbeck.adaptors import linear
from limbeck.errors import RequestError
from limbeck.methods._penultimate import Last


class EmbeddedClassifier(nn.Module):
    """A classifier behind a linear embedding; both are initialised afresh, and one Linear when folded.

    Args:
        replaced: the Linear(D, K) whose place it takes; a bias of both as there.
        width: D', of the embedding: Linear(D, D'), then Linear(D', K).
    """

    def __init__(self, replaced: nn.Linear, width: int) -> None:
        super().__init__()
        bias = replaced.bias is not None
        self.embedding = linear(replaced.in_features, width, bias=bias)
        self.classifier = linear(width, replaced.out_features, bias=bias)
        self.to(replaced.weight.device, replaced.weight.dtype)

    def forward(self, value: Tensor) -> Tensor:
        """[B, D] -> [B, K]."""
        outputs: Tensor = self.classifier(self.embedding(value))
        return outputs

    def folded(self) -> nn.Linear:
        """The same map as one Linear(D, K); multiplied in float64, and nothing is drawn."""
        one, two = self.embedding, self.classifier
        weight = two.weight.detach().double() @ one.weight.detach().double()
        made: nn.Linear = skip_init(  # type: ignore[no-untyped-call]
            nn.Linear,
            one.in_features,
            two.out_features,
            bias=two.bias is not None,
            device=two.weight.device,
            dtype=two.weight.dtype,
        )
        with torch.no_grad():
            made.weight.copy_(weight)
            if two.bias is not None:
                made.bias.copy_(two.weight.double() @ one.bias.double() + two.bias.double())
        return made.train(self.training)


@dataclass(frozen=True)
class Found:
    """The last features of both networks."""

    own: Last
    other: Last

    @property
    def widths(self) -> tuple[int, int]:
        """D_s and D_t."""
        return self.own.width, self.other.width

    @property
    def outputs(self) -> tuple[int, int | None]:
        """Numbers of outputs of student and teacher; None of a teacher without a classifier."""
        return self.own.number, None if self.other.classifier is None else self.other.number

    @property
    def std(self) -> float | None:
        """Deviation of all weights of the teacher's classifier; None without one."""
        linear = self.other.classifier
        return None if linear is None else float(linear.weight.detach().float().std())


def embed(student: nn.Module, found: Found) -> EmbeddedClassifier:
    """Puts a classifier with an embedding of the teacher's width into the student, in place.

    Raises:
        RequestError: the student's classifier is not one Linear of its own, or its layer is another value
            than what enters that.
    """
    own, target = found.widths
    name, replaced = found.own.name, found.own.classifier
    if replaced is None:
        raise RequestError(
            f"student features have {own} entries and the teacher's {target}, and the student "
            f"{type(plain(student)).__name__} does not end in one Linear before which an embedding could "
            "stand",
            fix=f"a student layer with {target} entries, or a student with such a head",
        )
    if not found.own.enters:
        raise RequestError(
            f"student layer {found.own.path!r} is not what enters the classifier {name!r}, so an "
            f"embedding of {own} into {target} entries could not be folded into that",
            fix=f'taps = {{ student = ["{name}.input"] }}',
        )
    if any(isinstance(module, EmbeddedClassifier) for module in student.modules()):
        raise RequestError(
            "the student has the embedding of another lshfm in it", fix="a student of its own for each"
        )
    if replaced._forward_hooks or replaced._forward_pre_hooks or set(replaced._modules):
        raise RequestError(
            f"the student's classifier {name!r} has hooks or parametrizations, and lshfm takes its place",
            fix="build lshfm before other methods on the same student, or take them off",
        )
    joint = EmbeddedClassifier(replaced, target)
    exchange(student, replaced, joint)
    return joint


def last_layer(found: Found, joint: EmbeddedClassifier | None) -> list[nn.Module]:
    """The Linear that makes the student's outputs, as the student is now; empty where it has none."""
    if joint is not None:
        return [joint.classifier]
    return [] if found.own.classifier is None else [found.own.classifier]


def fold(network: nn.Module) -> nn.Module:
    """A network with every embedding folded into its classifier; changed in place and returned."""
    for module in [each for each in network.modules() if isinstance(each, EmbeddedClassifier)]:
        exchange(network, module, module.folded())
    return network


def exchange(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a module into every place that another has in a network."""
    for holder in list(network.modules()):
        for name, module in list(holder._modules.items()):
            if module is old:
                setattr(holder, name, new)


def without(network: nn.Module, left_out: nn.Module) -> list[nn.Module | nn.Parameter]:
    """All modules and parameters of a network but one module, in as few parts as there can be."""
    if network is left_out:
        return []
    if all(module is not left_out for module in network.modules()):
        return [network]
    parts: list[nn.Module | nn.Parameter] = list(network.parameters(recurse=False))
    for child in network.children():
        parts += without(child, left_out)
    return parts


@contextmanager
def train_mode(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in train mode; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
