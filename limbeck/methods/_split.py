"""A network cut at its taps: which modules and parameters make up each stage, and which the head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from limbeck._taps.paths import TapPath, module_names, resolve
from limbeck._taps.survey import undisturbed
from limbeck.errors import RequestError
from limbeck.taps import Taps

#: How to say what the order of execution leaves open.
_FIX = 'name them: stage_modules = [["stem", "layer1"], ["layer2"]], head_modules = ["fc"]'


@dataclass
class Unit:
    """A module that works in one stage, or a parameter of a module that works in several.

    Args:
        name: in the unwrapped network.
        part: the module, without children or with state of its own; or the parameter.
        runs: the stages in which it is called, from 0, the head last; empty where that is not seen.
        feeds: the first stages that its parameters have a gradient from.
        home: the stages it belongs to; several only where it has no state.
    """

    name: str
    part: nn.Module | nn.Parameter
    runs: frozenset[int] = frozenset()
    feeds: frozenset[int] = frozenset()
    home: frozenset[int] = frozenset()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Its own parameters."""
        return [self.part] if isinstance(self.part, nn.Parameter) else list(self.part.parameters())

    @property
    def stateful(self) -> bool:
        """Whether it has parameters or buffers."""
        buffers = () if isinstance(self.part, nn.Parameter) else self.part.buffers()
        return bool(self.parameters) or any(True for _ in buffers)

    @property
    def resets(self) -> list[Callable[[], Any]] | None:
        """What initialises it afresh, from the inside out; None where a holder of parameters cannot."""
        if isinstance(self.part, nn.Parameter):
            return None
        holders = [module for module in self.part.modules() if any(True for _ in module.parameters(False))]
        found = [getattr(module, "reset_parameters", None) for module in reversed(holders)]
        return [reset for reset in found if callable(reset)] if all(map(callable, found)) else None

    def tensors(self) -> list[Tensor]:
        """Its parameters and buffers."""
        return [self.part] if isinstance(self.part, nn.Parameter) else list(self.part.state_dict().values())


class Norm(NamedTuple):
    """A batch norm that was called: its first stage, and how many values a channel one sample gives it."""

    name: str
    module: nn.Module
    stage: int
    positions: int


@dataclass
class Split:
    """The stages of a network, counted from 0; the head is the last.

    Args:
        units: all its modules and parameters, in the order of definition.
        norms: its batch norms.
        idle: names of the parameters that train in no stage.
    """

    units: list[Unit]
    norms: list[Norm]
    idle: list[str] = field(default_factory=list)

    def of(self, stages: Collection[int]) -> list[nn.Module | nn.Parameter]:
        """What belongs to these stages and to no other."""
        return [unit.part for unit in self.units if unit.home and unit.home <= set(stages)]

    def holders(self, stage: int) -> list[Unit]:
        """What has parameters or buffers in one stage."""
        return [unit for unit in self.units if unit.home == {stage} and unit.stateful]


def split(
    taps: Taps,
    batch: Mapping[str, Any],
    stage_modules: Sequence[Sequence[str]] | None = None,
    head_modules: Sequence[str] | None = None,
) -> Split:
    """Finds what is executed up to each tap, and after the last one; the network is left as it was.

    A module belongs to the stage in which it is called, a parameter held by a module with children to the
    first stage that it has an influence on. Both must agree for every parameter.

    Args:
        taps: of the network, one path a stage, in the order of execution.
        batch: normal form.
        stage_modules: names of the modules (or parameters) of each stage, in place of what is found.
        head_modules: names of those of the head, in place of what is executed after the last tap.

    Raises:
        RequestError: taps out of order, or modules that cannot be told to belong to one stage.
    """
    found, last = _observe(taps, batch), len(taps.paths)
    listed = _listed(taps, found.units, stage_modules, head_modules)
    open_regions = {*(() if stage_modules else range(last)), *(() if head_modules else (last,))}
    for unit in found.units:
        if id(unit.part) in listed:
            unit.home = _checked(unit, listed[id(unit.part)], last)
        elif not unit.stateful:
            unit.home = unit.runs
        elif open_regions:
            home = _derived(unit, last)
            unit.home = home if home <= open_regions else frozenset()
    found.idle += [unit.name for unit in found.units if unit.parameters and unit.feeds and not unit.home]
    return found


def head_of(taps: Taps, batch: Mapping[str, Any]) -> list[Unit]:
    """What has parameters or buffers after the last tap, in the order of definition."""
    last = frozenset([len(taps.paths)])
    return [unit for unit in _observe(taps, batch).units if unit.stateful and unit.runs | unit.feeds == last]


def check_order(taps: Taps, batch: Mapping[str, Any], who: str) -> None:
    """Refuses taps that are not computed in the order in which they are given."""
    with undisturbed(taps.model, training=False) as network:
        log = _logged(taps, network, batch)[1]
    _ends(taps, log, who)


class _Call(NamedTuple):
    """A module was entered, or left with a value of so many entries a channel and sample."""

    module: nn.Module
    left: bool
    positions: int


def _observe(taps: Taps, batch: Mapping[str, Any]) -> Split:
    """All units with where they run and what they feed, still without a home."""
    with undisturbed(taps.model, training=True) as network:
        values, log = _logged(taps, network, batch)
        first = _first_fed(list(network.parameters()), values)
    ends = _ends(taps, log, "student")
    runs: dict[int, set[int]] = {}
    positions: dict[int, int] = {}
    for at, call in enumerate(log):
        if call.left:
            runs.setdefault(id(call.module), set()).add(sum(end < at for end in ends))
            positions[id(call.module)] = min(call.positions, positions.get(id(call.module), call.positions))
    units = list(_units(network, runs, first))
    idle = [unit.name for unit in units if not all(id(parameter) in first for parameter in unit.parameters)]
    norms = [
        Norm(name, module, min(runs[id(module)]), positions[id(module)])
        for name, module in module_names(network).items()
        if isinstance(module, _BatchNorm) and id(module) in runs
    ]
    return Split(units, norms, idle)


def _units(network: nn.Module, runs: Mapping[int, set[int]], first: Mapping[int, int]) -> Iterator[Unit]:
    """All modules and parameters of a network, each in one unit, in the order of definition."""
    names = {id(module): name for name, module in reversed(module_names(network).items())}
    seen: set[int] = set()

    def stages(module: nn.Module) -> tuple[frozenset[int], frozenset[int]]:
        fed = frozenset(first[id(p)] for p in module.parameters() if id(p) in first)
        return frozenset().union(*(runs.get(id(inside), ()) for inside in module.modules())), fed

    def walk(module: nn.Module) -> Iterator[Unit]:
        if id(module) in seen:
            return
        seen.add(id(module))
        name, (run, fed) = names.get(id(module), ""), stages(module)
        own = dict(module.named_parameters(recurse=False))
        holds = bool(own) or any(True for _ in module.buffers(recurse=False))
        leaf = not any(True for _ in module.children())
        if leaf or (holds and len(run | fed) == 1):
            seen.update(id(inside) for inside in (*module.modules(), *module.parameters()))
            yield Unit(name, module, run, fed)
            return
        for short, parameter in own.items():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                where = [first[id(parameter)]] if id(parameter) in first else []
                yield Unit(f"{name}.{short}".lstrip("."), parameter, feeds=frozenset(where))
        for child in module.children():
            yield from walk(child)

    return walk(network)


def _logged(
    taps: Taps, network: nn.Module, batch: Mapping[str, Any]
) -> tuple[list[list[Tensor]], list[_Call]]:
    """The value at each tap, then those of the output; and all calls in their order."""
    log: list[_Call] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        log.append(_Call(module, False, 0))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        sized = isinstance(output, Tensor) and output.ndim > 1 and output.numel() > 0
        log.append(_Call(module, True, output[0, 0].numel() if sized else 0))

    with ExitStack() as hooks:
        for module in network.modules():
            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        record = taps(batch)
    return [*([record[path]] for path in taps.paths), list(_tensors(record.output))], log


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested mappings, tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _first_fed(parameters: Sequence[nn.Parameter], values: Sequence[Sequence[Tensor]]) -> dict[int, int]:
    """By identity of a parameter, the first of the values that it has an influence on."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    first: dict[int, int] = {}
    for stage, tensors in enumerate(values):
        sums = [tensor.float().sum() for tensor in tensors if tensor.requires_grad]
        if not sums or not trained:
            continue
        found = torch.autograd.grad(torch.stack(sums).sum(), trained, allow_unused=True, retain_graph=True)
        for parameter, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                first.setdefault(id(parameter), stage)
    return first


def _ends(taps: Taps, log: Sequence[_Call], who: str) -> list[int]:
    """Where in the log each tapped value is there; refuses another order than that of the taps."""
    ends = [_end(log, resolve(taps.model, path)) for path in taps.paths]
    for number, (before, after) in enumerate(pairwise(ends)):
        if before >= after:
            one, two = taps.paths[number], taps.paths[number + 1]
            raise RequestError(
                f"{who} taps are out of order: {two!r} is computed before {one!r}",
                fix="give them from input to output, one a stage",
            )
    return ends


def _end(log: Sequence[_Call], path: TapPath) -> int:
    calls = [at for at, call in enumerate(log) if call.module is path.module and call.left != path.entering]
    return calls[(path.call or 1) - 1]


def _listed(
    taps: Taps,
    units: Sequence[Unit],
    stage_modules: Sequence[Sequence[str]] | None,
    head_modules: Sequence[str] | None,
) -> dict[int, int]:
    """The stage of every unit that the caller named, by identity."""
    number = len(taps.paths)
    if stage_modules is not None and len(stage_modules) != number:
        raise RequestError(
            f"stage_modules has {len(stage_modules)} lists for {number} taps", fix="give one list a tap"
        )
    stages: dict[int, int] = {}
    loose = {unit.name: unit.part for unit in units if isinstance(unit.part, nn.Parameter)}
    known = {id(unit.part): unit.name for unit in units}
    for stage, names in enumerate([*(stage_modules or [()] * number), head_modules or ()]):
        for name in names:
            named = loose[name] if name in loose else resolve(taps.model, name).module
            inside = [named] if isinstance(named, nn.Parameter) else [*named.modules(), *named.parameters()]
            for part in inside:
                if id(part) in known and stages.setdefault(id(part), stage) != stage:
                    raise RequestError(
                        f"{known[id(part)]} is listed in {_called(stages[id(part)], number)} and in "
                        f"{_called(stage, number)}; stages must not overlap"
                    )
            if not any(id(part) in known for part in inside):
                raise RequestError(
                    f"{name} is a part of a module that works as a whole", fix="list that module"
                )
    return stages


def _checked(unit: Unit, stage: int, last: int) -> frozenset[int]:
    """The home that the caller gave a unit, if it can be one."""
    where = unit.runs | unit.feeds
    if where and (stage not in where or max(unit.feeds, default=stage) > stage):
        raise RequestError(
            f"{unit.name} is listed in {_called(stage, last)}, but works in "
            f"{' and '.join(_called(each, last) for each in sorted(where))}",
            fix="list it there",
        )
    return frozenset([stage])


def _derived(unit: Unit, last: int) -> frozenset[int]:
    """The one stage in which a unit with state is called, and which its parameters feed first."""
    where = unit.runs | unit.feeds
    if len(where) <= 1:
        return where
    if len(unit.runs) > 1:
        reason = (
            f"{unit.name} is called in {' and '.join(_called(stage, last) for stage in sorted(unit.runs))}"
        )
    else:
        run, fed = min(unit.runs or unit.feeds), max(unit.feeds)
        reason = f"{unit.name} is called in {_called(run, last)}, but feeds {_called(fed, last)} first"
    raise RequestError(f"{reason}; the taps do not say which stage trains it", fix=_FIX)


def _called(stage: int, last: int) -> str:
    return "the head" if stage == last else f"stage {stage + 1}"
