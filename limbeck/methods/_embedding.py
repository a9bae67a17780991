"""What enters the classifiers of two networks, and a linear embedding between them that folds away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from limbeck._taps.paths import plain
from limbeck._taps.proposals import few
from limbeck._taps.survey import beside, undisturbed
from limbeck.adaptors import linear
from limbeck.errors import RequestError
from limbeck.methods._classifier import Call, calls, classifier_of, close
from limbeck.taps import Taps
from limbeck.task import Task

_SAMPLES = 16  # that show widths and classifiers
_FIX = 'what enters the classifier, as taps = { student = ["fc.input"], teacher = ["fc.input"] }'


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
    """The features of both networks.

    Args:
        paths: their layers, by side.
        classifier: the student's last Linear, if its outputs are those of one, and its name.
        enters: the student's layer holds what enters it.
        widths: D_s and D_t.
        outputs: numbers of outputs of student and teacher; None of a teacher without a classifier.
        std: deviation of all weights of the teacher's classifier; None without one.
    """

    paths: dict[str, list[str]]
    classifier: tuple[str, nn.Linear] | None
    enters: bool
    widths: tuple[int, int]
    outputs: tuple[int, int | None]
    std: float | None


def find(
    student: nn.Module, teacher: nn.Module, task: Task, taps: Mapping[str, Sequence[str]] | None, example: Any
) -> Found:
    """The layers as the user named them, else what enters the classifiers, by a dry batch.

    Raises:
        RequestError: no example, layers of a wrong number or form, or none named of a network that does not
            end in a Linear.
    """
    if example is None:
        raise RequestError(
            "lshfm looks for the features of both networks with one batch, and none was given",
            fix="example=next(iter(loader))",
        )
    samples, named = few(task.batch(example), _SAMPLES), _named(taps)
    seen, output = calls(student, samples, task)
    own = classifier_of(seen, output)
    if named["student"] is None and own is None:
        raise _headless(student, "student")
    own_path = named["student"] or _entering(own)
    theirs, answer = calls(teacher, samples, task)
    their = classifier_of(theirs, answer)
    their_path = named["teacher"] or (_entering(their) if their else _outputs_of(teacher, theirs, answer))
    feature = read(student, own_path, samples, task, "student")
    target = read(teacher, their_path, samples, task, "teacher")
    return Found(
        {"student": [own_path], "teacher": [their_path]},
        None if own is None else (own[0].name, _linear(own[0])),
        own is not None and own[0].entering is not None and close(feature, own[0].entering),
        (feature.shape[1], target.shape[1]),
        (output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 else 0, _number(their)),
        None if their is None else float(_linear(their[0]).weight.detach().float().std()),
    )


def embed(student: nn.Module, found: Found) -> EmbeddedClassifier:
    """Puts a classifier with an embedding of the teacher's width into the student, in place.

    Raises:
        RequestError: the student's classifier is not one Linear of its own, or its layer is another value
            than what enters that.
    """
    own, target = found.widths
    if found.classifier is None:
        raise RequestError(
            f"student features have {own} entries and the teacher's {target}, and "
            f"the student {_kind(student)} does not end in one Linear before which an embedding could stand",
            fix=f"a student layer with {target} entries, or a student with such a head",
        )
    name, replaced = found.classifier
    if not found.enters:
        raise RequestError(
            f"student layer {found.paths['student'][0]!r} is not what enters the classifier {name!r}, so an "
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
    return [] if found.classifier is None else [found.classifier[1]]


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


def vector(value: Tensor, layer: str) -> Tensor:
    """A feature [B, D], or [B, D, 1, 1] flattened to it.

    Raises:
        RequestError: another form, or values that are not real numbers.
    """
    if value.ndim > 2 and value[0].numel() == value.shape[1]:
        value = value.flatten(1)
    if value.ndim != 2 or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise RequestError(
            f"layer {layer} gives {kind} {tuple(value.shape)}; needed one real vector a sample, [B, D] after "
            "pooling",
            fix=_FIX,
        )
    return value


def read(network: nn.Module, path: str, samples: Mapping[str, Any], task: Task, side: str) -> Tensor:
    """The feature of a network at a layer in eval mode, [B, D]; the network is left as it was."""
    taps = Taps(network, [path], task=task, trainable=False)
    try:
        with undisturbed(network, training=False) as bare:
            value = taps(beside(bare, samples))[path]
    finally:
        taps.remove()
    return vector(value, f"{side} {path!r}")


def _named(taps: Mapping[str, Sequence[str]] | None) -> dict[str, str | None]:
    """The layer that the user named of each network; None where none is."""
    given = {side: list(paths or ()) for side, paths in (taps or {}).items()}
    if set(given) - {"student", "teacher"}:
        raise RequestError(f"taps {given}; needed the keys student and teacher", fix=_FIX)
    for side, paths in given.items():
        if len(paths) > 1:
            raise RequestError(
                f"lshfm reads one {side} layer, and {len(paths)} are named", fix=f"one of each: {_FIX}"
            )
    return {side: next(iter(given.get(side, [])), None) for side in ("student", "teacher")}


def _entering(found: tuple[Call, Tensor] | None) -> str:
    assert found is not None
    return f"{found[0].name}.input"


def _linear(call: Call) -> nn.Linear:
    assert isinstance(call.module, nn.Linear)
    return call.module


def _number(found: tuple[Call, Tensor] | None) -> int | None:
    return None if found is None else len(found[1])


def _outputs_of(network: nn.Module, seen: Sequence[Call], output: Any) -> str:
    """The module whose value is the output of a network without a classifier, the outermost."""
    names = [call.name for call in seen if call.leaving is output and call.usable]
    if not names or not isinstance(output, Tensor) or output.ndim != 2:
        raise _headless(network, "teacher")
    return min(names, key=lambda name: name.count("."))


def _headless(network: nn.Module, side: str) -> RequestError:
    return RequestError(
        f"the {side} {_kind(network)} does not end in one Linear, so its features are not known",
        fix=f'name the layer that holds them, [B, D] after pooling: taps = {{ {side} = ["pool"] }}',
    )


def _kind(network: nn.Module) -> str:
    return type(plain(network)).__name__
