"""Where the classifier of a teacher is, and what enters it: the mean of which map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._taps.paths import first_tensor, module_names, plain
from limbeck._taps.survey import beside, undisturbed, version_of
from limbeck.errors import RequestError
from limbeck.methods._layouts import Layout
from limbeck.task import Task

_TOLERANCE = 1e-5  # relative, of float32 and wider
_ROUNDED = 1e-3  # of an accelerator, which may round the factors of a product
_FIXES = (
    'match the vector that enters it, taps = { teacher = ["CLASSIFIER.input"] }, or reuse more of the '
    "teacher, reuse_from"
)


@dataclass
class Call:
    """The first call of a module in a pass: the first tensors that entered and left it.

    Args:
        name: in the unwrapped network.
        once: it was called no second time.
        version: in-place counter of what left, when it left.
    """

    name: str
    module: nn.Module
    entering: Tensor | None
    leaving: Tensor | None
    once: bool = True
    version: int = 0

    @property
    def usable(self) -> bool:
        """Whether a tap on what left it would be right."""
        return self.once and self.leaving is not None and version_of(self.leaving) == self.version


@dataclass(frozen=True)
class Head:
    """How a teacher makes its outputs of a map: some modules, the mean over space, a Linear.

    Args:
        path: of the map.
        relu: the teacher takes its ReLU on the way, outside of a module.
        modules: names of the modules between map and mean, in their order.
        pooling: layout of what is averaged.
        classifier: name of the Linear.
        order: for each output of the teacher the row of the Linear that makes it.
    """

    path: str
    modules: tuple[str, ...]
    pooling: str
    classifier: str
    order: Tensor
    relu: bool = False

    def target(self, value: Tensor) -> Tensor:
        """The map that is matched: after the ReLU, where no reused module comes before it."""
        return value.relu() if self.relu and not self.modules else value

    def averaged(self, value: Tensor) -> Tensor:
        """What enters the Linear, [B, C], of what leaves the last module."""
        value = Layout.parse(self.pooling, "teacher").to_map(value, f"teacher {self.path}")
        return (value.relu() if self.relu else value).mean((2, 3))

    def linear(self, model: nn.Module) -> nn.Linear:
        """The Linear as it stands in the teacher."""
        module = module_names(model)[self.classifier]
        assert isinstance(module, nn.Linear)
        return module

    def copy_to(self, classifier: nn.Linear, model: nn.Module) -> None:
        """Writes the weights of the teacher's Linear, in the order of the teacher's outputs."""
        source = self.linear(model)
        with torch.no_grad():
            order = self.order.to(source.weight.device)
            classifier.weight.copy_(source.weight[order])
            if source.bias is not None and classifier.bias is not None:
                classifier.bias.copy_(source.bias[order])


def calls(model: nn.Module, batch: Mapping[str, Any], task: Task) -> tuple[list[Call], Tensor]:
    """Every module that a pass calls, in the order in which they return, and the outputs [B, K]."""
    found: dict[int, Call] = {}
    order: list[Call] = []
    with undisturbed(model, training=False) as network, ExitStack() as hooks:
        names = {id(module): name for name, module in reversed(module_names(network).items())}

        def before(module: nn.Module, inputs: Any, keywords: Any) -> None:
            call = found.get(id(module))
            if call is not None:
                call.once = False
                return
            entering = first_tensor([inputs, keywords])
            found[id(module)] = Call(names[id(module)], module, entering, None)

        def after(module: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
            call = found[id(module)]
            if call.once:
                call.leaving = first_tensor(output)
                call.version = 0 if call.leaving is None else version_of(call.leaving)
                order.append(call)

        for module in network.modules():
            if id(module) in names:
                hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        output = task.call(network, beside(network, batch))
    return order, output


def classifier_of(seen: Sequence[Call], output: Tensor) -> tuple[Call, Tensor] | None:
    """The Linear whose outputs are the network's, in whatever order; None if there is none."""
    for call in reversed(seen):
        if isinstance(call.module, nn.Linear) and call.leaving is not None and call.leaving.ndim == 2:
            order = _order(call.leaving, output)
            if order is not None and call.once:
                return call, order
    return None


def head_of_teacher(
    model: nn.Module,
    batch: Mapping[str, Any],
    task: Task,
    picture: tuple[int, int] | None,
    *,
    path: str | None = None,
    reuse_from: str | None = None,
) -> Head:
    """Finds the classifier of a teacher and the map whose mean enters it, by comparing values.

    Args:
        model: the teacher.
        batch: some samples, in normal form.
        task: how they enter it.
        picture: their height and width; None for what is no picture: then the vector that enters is taken.
        path: of the map, as the user named it; it is not looked for, and checked by the method.
        reuse_from: the first module that is reused; the map is what enters it.

    Raises:
        RequestError: the outputs are not those of a Linear, or no mean of a map enters it.
    """
    seen, output = calls(model, batch, task)
    kind = type(plain(model)).__name__
    found = classifier_of(seen, output)
    if found is None:
        raise RequestError(
            f"the teacher {kind} does not end in one Linear on pooled features, so there is no classifier to "
            "reuse",
            fix="a teacher with such a head, or another method",
        )
    call, order = found
    assert call.entering is not None
    if reuse_from is not None:
        modules, pooling, relu = _chain(seen, call, reuse_from, picture)
        return Head(f"{reuse_from}.input", modules, pooling, call.name, order, relu)
    if path is not None:
        return Head(path, (), "bchw", call.name, order)
    maps = any(each.leaving is not None and each.leaving.ndim > 2 for each in seen)
    if picture is None or not maps or _is_class_token(seen, call.entering):
        return Head(f"{call.name}.input", (), "bchw", call.name, order)
    for name, _, relu in averaged(seen, call.entering, picture):
        return Head(name, (), "bchw", call.name, order, relu)
    raise RequestError(
        f"the teacher {kind} averages no map over space to what enters its classifier {call.name!r}",
        fix=_FIXES.replace("CLASSIFIER", call.name),
    )


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two values agree to 1e-5 of the largest entry, or to what precision and device allow."""
    if one.shape != other.shape:
        return False
    rounded = _ROUNDED if other.device.type != "cpu" else _TOLERANCE
    tolerance = max(rounded, 8 * torch.finfo(other.dtype).eps)
    one, other = one.double(), other.double()
    return float((one - other).abs().max()) <= tolerance * max(float(other.abs().max()), 1e-12)


def _order(rows: Tensor, output: Any) -> Tensor | None:
    """For each column of the output the equal one of the Linear's; None if one has no equal."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(rows) != len(output):
        return None
    if rows.shape == output.shape and torch.equal(rows, output):
        return torch.arange(output.shape[1])
    places = []
    for column in output.T:
        same = (rows == column[:, None]).all(0).nonzero().flatten()
        if len(same) != 1:
            return None
        places.append(int(same[0]))
    return torch.tensor(places)


def _map(value: Tensor, picture: tuple[int, int] | None) -> tuple[str, Tensor] | None:
    """A value as a map with its layout; None where that cannot be told."""
    if not value.is_floating_point() or value.ndim not in (2, 3, 4):
        return None
    if value.ndim == 4 and value.shape[2:] == (1, 1):
        return "bchw", value
    try:
        layout = Layout.read_off(value.shape, picture, "value")
    except RequestError:
        return None
    return layout.text, layout.to_map(value, "value")


def averaged(
    seen: Sequence[Call], entering: Tensor, picture: tuple[int, int]
) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """The values whose mean over space enters the classifier, the latest first; single cells come last.

    Yields:
        The outermost name, height and width, and whether a ReLU lies between.
    """
    single: list[tuple[str, tuple[int, ...], bool]] = []
    for call in reversed(seen):
        if not call.usable or call.leaving is None or call.leaving.ndim < 3:
            continue
        found = _map(call.leaving, picture)
        if found is None:
            continue
        relu = not close(found[1].mean((2, 3)), entering)
        if relu and not close(found[1].relu().mean((2, 3)), entering):
            continue
        same = [other for other in seen if other.leaving is call.leaving and other.usable]
        name = min(same, key=lambda other: other.name.count(".")).name
        size = tuple(found[1].shape[2:])
        if size == (1, 1):
            single.append((name, size, relu))
        else:
            yield name, size, relu
    yield from single


def _is_class_token(seen: Sequence[Call], entering: Tensor) -> bool:
    """Whether the first token of a value enters the classifier."""
    return any(
        call.leaving is not None
        and call.leaving.ndim == 3
        and call.leaving.shape[1] > 1
        and close(call.leaving[:, 0], entering)
        for call in seen
    )


def _chain(
    seen: Sequence[Call], classifier: Call, first: str, picture: tuple[int, int] | None
) -> tuple[tuple[str, ...], str, bool]:
    """The modules from one to the mean before the classifier, each fed by the one before alone."""
    by_name = {call.name: call for call in seen}
    if first not in by_name:
        raise RequestError(f"reuse_from {first!r} is no module that the teacher calls", near=list(by_name))
    call, names = by_name[first], [first]
    assert classifier.entering is not None
    while call.leaving is not None:
        found = _map(call.leaving, picture)
        for relu in (False, True) if found is not None else ():
            assert found is not None
            value = found[1].relu() if relu else found[1]
            if close(value.mean((2, 3)), classifier.entering):
                return tuple(names), found[0], relu
        inside = tuple(f"{name}." for name in names)
        following = [
            other
            for other in seen[seen.index(call) + 1 :]
            if other.entering is call.leaving and not other.name.startswith(inside) and other.usable
        ]
        if not following:
            break
        call = min(following, key=lambda other: other.name.count("."))
        names.append(call.name)
    raise RequestError(
        f"reuse_from {first!r}: what the teacher computes from {names[-1]!r} to its classifier "
        f"{classifier.name!r} is no chain of modules",
        fix="name the last block, or a whole group of blocks, as in layer4",
    )
