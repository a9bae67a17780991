"""Which layers of a student to pair with which of its teacher, when nobody says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from limbeck._taps.paths import first_tensor, plain
from limbeck._taps.survey import Event, Survey, survey
from limbeck.errors import RequestError
from limbeck.task import Task, num_samples

#: Pairs for networks without resolutions of their own: as many as convolutional networks usually have.
_MOST_BLOCKS = 4
#: Samples looked at: every value of the pass is kept, and only shapes beyond the first dimension count.
_SAMPLES = 2


def propose(
    model_student: nn.Module, model_teacher: nn.Module, batch: Any, task: Task
) -> dict[str, list[str]]:
    """Layers to pair, found by one pass of each network; neither is changed.

    A network whose values shrink (a CNN) gives the last block of each resolution, without stem and pooled
    vector. One of equal blocks (ViT, MLP-Mixer, BERT) gives the last block of each of equally many groups;
    any other the last value before each weighted layer but the first. Values changed in place later are
    left out.

    Args:
        model_student: the student, wrapped or not.
        model_teacher: the teacher.
        batch: a batch in any form that the task takes.
        task: how it enters both networks.

    Returns:
        `{"student": [...], "teacher": [...]}`, shallow to deep, equally many: the deepest resolutions where a
        network has more, groups spread evenly over blocks.

    Raises:
        RequestError: a network has no value to propose.
    """
    small = few(task.batch(batch), _SAMPLES)
    student, teacher = _Depths(model_student, small, task), _Depths(model_teacher, small, task)
    student.agree(teacher)
    number = min(student.most(), teacher.most())
    return {"student": student.choose(number), "teacher": teacher.choose(number)}


class _Depths:
    """The candidate layers of one network, shallow to deep."""

    def __init__(self, model: nn.Module, batch: Mapping[str, Any], task: Task) -> None:
        self.kind = type(plain(model)).__name__
        seen = survey(model, batch, task)
        values = _values(seen, num_samples(batch))
        self.stacks = _stacks(seen.events)
        tokens = _largest([stack for stack in self.stacks if stack.dimensions == 3])
        self.maps = _Resolutions(_outside(values, tokens), seen).paths()
        main = tokens or _largest(self.stacks)
        if main and (len(self.maps) < 2 or _mostly_after(self.maps, values, seen)):
            self.maps = []
        self.stack = None if self.maps else main
        self.others = [] if self.maps or main else _between_weights(values, seen)

    def agree(self, other: _Depths) -> None:
        """Chooses stacks of the same name in both networks, as the encoders of two encoder-decoders."""
        both = [
            (mine, theirs)
            for mine in self.stacks
            for theirs in other.stacks
            if mine.dimensions == theirs.dimensions == 3
            and mine.parent.split(".")[-2:] == theirs.parent.split(".")[-2:]
        ]
        if self.stack and other.stack and both:
            self.stack, other.stack = max(both, key=lambda pair: min(pair[0].flops, pair[1].flops))

    def most(self) -> int:
        """How many layers it can give.

        Raises:
            RequestError: none.
        """
        if self.maps:
            return len(self.maps)
        available = len(self.stack.blocks) if self.stack else len(self.others)
        if not available:
            raise RequestError(
                f"{self.kind} has no layer to propose: no feature map, block or hidden value",
                fix="name the layers in taps; `limbeck layers` lists them",
            )
        return min(available, _MOST_BLOCKS)

    def choose(self, number: int) -> list[str]:
        """The paths of `number` layers."""
        if self.maps:
            return self.maps[-number:]
        paths = self.stack.blocks if self.stack else self.others
        return [paths[(i + 1) * len(paths) // number - 1] for i in range(number)]


@dataclass
class _Value:
    """One tensor of a pass: the calls that returned it, innermost first, and their names, the best first."""

    value: Tensor
    events: list[Event] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The name that reads best."""
        return self.names[0]

    @property
    def size(self) -> tuple[int, ...]:
        """Its spatial size, empty if it is no feature map."""
        return _size(self.value)


@dataclass
class _Stack:
    """Equal blocks in a row: children of one parent, of one class, with values of one shape."""

    parent: str
    dimensions: int
    blocks: list[str] = field(default_factory=list)
    flops: int = 0


def _values(seen: Survey, samples: int) -> list[_Value]:
    """The distinct values of a pass that can be tapped, in order; not the output itself."""
    many = {event.name for event in seen.events if event.call > 1}
    final = first_tensor(seen.output)
    found: dict[tuple[int, int], _Value] = {}
    for event in seen.events:
        value = event.value
        if value is None or value is final or event.overwritten or not _hidden(value, samples):
            continue
        found.setdefault((id(value), event.version), _Value(value)).events.append(event)
    for each in found.values():
        # Names that read best come first: a tensor, not a part; one call; the outermost module.
        best = sorted(each.events, key=lambda e: (bool(e.whole), e.name in many, e.name.count(".")))
        each.names = [f"{event.name}#{event.call}" if event.name in many else event.name for event in best]
    return list(found.values())


def _hidden(value: Tensor, samples: int) -> bool:
    return value.is_floating_point() and value.ndim >= 2 and len(value) == samples


def _stacks(events: Sequence[Event]) -> list[_Stack]:
    """All rows of at least two equal blocks, each called once."""
    found: dict[tuple[str, type, Sequence[int]], _Stack] = {}
    many = {event.name for event in events if event.call > 1}
    for event in events:
        value = event.value
        if value is None or value.ndim not in (3, 4) or event.name in many or event.overwritten:
            continue
        if _num_weights(event.module) > 1:
            parent = event.name.rpartition(".")[0]
            new = _Stack(parent, value.ndim)
            stack = found.setdefault((parent, type(event.module), value.shape), new)
            stack.blocks.append(event.name)
            stack.flops += event.flops
    return [stack for stack in found.values() if len(stack.blocks) > 1]


def _largest(stacks: Sequence[_Stack]) -> _Stack | None:
    return max(stacks, key=lambda stack: stack.flops, default=None)


def _outside(values: Sequence[_Value], stack: _Stack | None) -> list[_Value]:
    """Without what is computed inside the blocks of a stack, as attention maps."""
    inside = tuple(f"{block}." for block in stack.blocks) if stack else ()
    return [value for value in values if not value.path.startswith(inside or ("\0",))]


class _Resolutions:
    """The feature maps [B, C, H, W] of a network, grouped by their size.

    A block is a module of several weighted layers that works at one or two resolutions: what is computed
    inside a block that leaves the resolution belongs to the way down, not to the resolution that it leaves.
    """

    def __init__(self, values: Sequence[_Value], seen: Survey) -> None:
        self.groups: dict[tuple[int, ...], list[_Value]] = {}
        for value in values:
            if value.size and max(value.size) > 1:
                self.groups.setdefault(value.size, []).append(value)
        sizes: dict[str, set[tuple[int, ...]]] = {}
        for event in seen.events:
            size = () if event.value is None else _size(event.value)
            for name in (event.name, *_above(event.name)):
                sizes.setdefault(name, set()).update({size} if size and max(size) > 1 else ())
        self.blocks = {
            event.name: _size(event.value)
            for event in seen.events
            if event.value is not None and _num_weights(event.module) > 1 and len(sizes[event.name]) <= 2
        }

    def paths(self) -> list[str]:
        """The last block of each resolution, in order; single layers (a stem) only where blocks are rare."""
        chosen = [max(enumerate(group), key=self._rank)[1] for group in self._ordered()]
        with_block = [value for value in chosen if self._is_block(value) and not self._on_the_way_down(value)]
        return _alike(with_block if len(with_block) > 1 else chosen)

    def _ordered(self) -> list[list[_Value]]:
        return sorted(self.groups.values(), key=lambda group: group[-1].events[-1].done)

    def _rank(self, placed: tuple[int, _Value]) -> tuple[bool, bool, int]:
        place, value = placed
        return self._is_block(value), not self._on_the_way_down(value), place

    def _is_block(self, value: _Value) -> bool:
        return any(event.name in self.blocks for event in value.events)

    def _on_the_way_down(self, value: _Value) -> bool:
        return any(self.blocks.get(name, value.size) != value.size for name in _above(value.path))


def _alike(values: Sequence[_Value]) -> list[str]:
    """Names of values: where a value is the last of its parent too, the name like that of the one before."""
    paths: list[str] = []
    for value in values:
        parent = paths[-1].rpartition(".")[0] if paths else None
        beside = [name for name in value.names if name.rpartition(".")[0] == parent]
        paths.append(beside[0] if beside else value.path)
    return paths


def _above(name: str) -> list[str]:
    """`a.b.c` -> `a.b`, `a`."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _size(value: Tensor) -> tuple[int, ...]:
    """The spatial size of a feature map; channels may come last (Swin). Empty for other values."""
    shape = value.shape
    if len(shape) != 4:
        return ()
    return tuple(shape[1:3]) if shape[1] == shape[2] != shape[3] else tuple(shape[2:])


def _mostly_after(maps: Sequence[str], values: Sequence[_Value], seen: Survey) -> bool:
    """Whether most of the work follows the last feature map, as in a ViT with a convolutional stem."""
    last = next(value for value in values if maps[-1] in value.names)
    return 2 * last.events[0].done < seen.flops


def _between_weights(values: Sequence[_Value], seen: Survey) -> list[str]:
    """The last value before each next weighted layer, as the activations of a multilayer perceptron."""
    weighted = [bool(_num_weights(e.module)) and not list(e.module.children()) for e in seen.events]
    before = dict(zip(map(id, seen.events), accumulate(weighted), strict=True))
    rows = {before[id(value.events[0])]: value.path for value in values}
    return list(rows.values())


def _num_weights(module: nn.Module) -> int:
    """Weight matrices and kernels in a module: parameters of two dimensions and more."""
    return sum(parameter.ndim > 1 for parameter in module.parameters())


def few(value: Any, number: int, total: int | None = None) -> Any:
    """The first samples of a batch in normal form: of every tensor and list that has one entry a sample."""
    if total is None:
        total = num_samples(value)
    if isinstance(value, Mapping):
        return {key: item if key == "count" else few(item, number, total) for key, item in value.items()}
    if isinstance(value, (Tensor, list)) and len(value) == total:
        return value[:number]
    return value
