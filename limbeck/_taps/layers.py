"""What a network's layers are called, what they return and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from limbeck._taps.paths import module_names, nearest_fired
from limbeck._taps.survey import Event, survey
from limbeck.task import Task


@dataclass(frozen=True)
class Layer:
    """One module of a network, as seen in one forward.

    Args:
        path: what to write in `taps`.
        kind: the class of the module.
        shape: of the value a tap on it gives (the first tensor it returns); None where there is none.
        calls: how often one forward calls it.
        parameters: in it and all that it holds, each counted once.
        share: its part of the forward's floating-point operations, 0 to 1.
        observable: a tap on it gives a value.
        note: what to know before tapping it: calls to name, parts to choose, a value that is overwritten.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    calls: int
    parameters: int
    share: float
    observable: bool
    note: str


def layers(model: nn.Module, batch: Any, task: Task) -> list[Layer]:
    """Every layer of a network, in the order of its definition; the network is left as it was.

    Args:
        model: the network, wrapped or not.
        batch: a batch in any form that the task takes. A small one will do: each value is kept to the end.
        task: how it enters the model.
    """
    seen = survey(model, task.batch(batch), task)
    fired = seen.fired()
    rows = []
    listed: set[int] = set()
    for name, module in module_names(model).items():
        if id(module) in listed or _only_holds(module):
            continue
        listed.add(id(module))
        events = seen.calls(name)
        rows.append(_layer(name, module, events, seen.flops, nearest_fired(name, fired)))
    return rows


def _only_holds(module: nn.Module) -> bool:
    """Whether a module is a mere list of others, which nobody can call."""
    return isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict))


def _layer(name: str, module: nn.Module, events: Sequence[Event], flops: int, near: Sequence[str]) -> Layer:
    value = next((event.value for event in events if event.value is not None), None)
    return Layer(
        path=name,
        kind=type(module).__name__,
        shape=None if value is None else tuple(value.shape),
        calls=len(events),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        share=sum(event.flops for event in events) / flops if flops else 0.0,
        observable=value is not None,
        note="; ".join(_notes(name, events, near)),
    )


def _notes(name: str, events: Sequence[Event], near: Sequence[str]) -> list[str]:
    if not events:
        return ["never called" + (f", nearest {near[0]}" if near else "")]
    notes = []
    if len(events) > 1:
        shapes = list(dict.fromkeys(tuple(e.value.shape) for e in events if e.value is not None))
        unlike = f", shapes {', '.join(map(str, shapes))}" if len(shapes) > 1 else ""
        notes.append(f"called {len(events)} times: name {name}#1..#{len(events)}{unlike}")
    whole, value = events[0].whole, events[0].value
    if whole:
        notes.append(
            f"{whole}: no tensor in it" if value is None else f"first tensor of {whole}; choose by :part"
        )
    if any(event.overwritten for event in events):
        notes.append("changed in place afterwards")
    return notes
