"""The hooks of taps, and what they share during a tapped call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from limbeck._taps.paths import TapPath, select
from limbeck._taps.survey import version_of
from limbeck.errors import RequestError


@dataclass
class Want:
    """A value to record; `copy`: something changes it in place afterwards."""

    path: TapPath
    copy: bool = False

    @property
    def key(self) -> str:
        """What its calls are counted under."""
        return self.path.layer


@dataclass
class Check:
    """What the dry pass notes beside a value: its in-place counter, and whether gradient was on."""

    version: int
    gradient: bool


@dataclass
class State:
    """What the hooks of one `Taps` share; empty outside a call, so nothing outlives it."""

    active: bool = False
    last: int | None = None  # stop at this number of values
    values: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    checks: dict[str, Check] | None = None

    def begin(self, last: int | None) -> None:
        """Starts recording."""
        self.active, self.last, self.values, self.calls = True, last, {}, {}

    def end(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Stops recording: the values by path and the calls by key."""
        values, calls = self.values, self.calls
        self.active, self.last, self.values, self.calls = False, None, {}, {}
        return values, calls


class Stop(BaseException):
    """Ends a forward after its last tapped value; no `except Exception` of a model may take it."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state


class NotCalledError(RequestError):
    """A tapped layer was not called."""

    def __init__(self, want: Want) -> None:
        super().__init__(
            f"layer {want.path.text!r} was not called for this batch", fix="tap a layer that always is"
        )
        self.want = want


class Hook:
    """Records the values wanted of one module. Plain Python on plain objects, which dynamo can follow."""

    def __init__(self, state: State, key: str, wants: Sequence[Want]) -> None:
        self.state = state
        self.key = key
        self.wants = tuple(wants)

    def take(self, whole: Any) -> None:
        """Counts a call and keeps the values that it brings."""
        state = self.state
        call = state.calls.get(self.key, 0) + 1
        state.calls[self.key] = call
        for want in self.wants:
            if want.path.call == call or (want.path.call is None and call == 1):
                value = select(want.path, whole)
                if want.copy:
                    value = value.clone()
                state.values[want.path.text] = value
                if state.checks is not None:
                    state.checks[want.path.text] = Check(version_of(value), torch.is_grad_enabled())
        if not torch.compiler.is_compiling() and state.last == len(state.values):
            raise Stop(state)


class _OutputHook(Hook):
    def __call__(self, module: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
        if self.state.active:
            self.take(output)


class _InputHook(Hook):
    def __call__(self, module: nn.Module, inputs: Any, keywords: Any) -> None:
        if self.state.active:
            self.take({**{str(i): value for i, value in enumerate(inputs)}, **keywords})


def place(wants: Mapping[str, Want], state: State) -> list[RemovableHandle]:
    """One hook a module and side."""
    handles = []
    for key in dict.fromkeys(want.key for want in wants.values()):
        here = [want for want in wants.values() if want.key == key]
        module = here[0].path.module
        if here[0].path.entering:
            entering = _InputHook(state, key, here)
            handles.append(module.register_forward_pre_hook(entering, with_kwargs=True))
        else:
            leaving = _OutputHook(state, key, here)
            handles.append(module.register_forward_hook(leaving, with_kwargs=True))
    return handles
