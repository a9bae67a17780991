"""Reading named values inside a network: a tapped model makes records."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from limbeck._clock import part
from limbeck._taps.hooks import Check, Hook, NotCalledError, State, Stop, Want, place
from limbeck._taps.layers import Layer, layers
from limbeck._taps.paths import TapPath, nearest_fired, plain, resolve
from limbeck._taps.proposals import propose
from limbeck._taps.survey import Survey, beside, is_compiled, survey, undisturbed, version_of
from limbeck.errors import RequestError
from limbeck.record import Record
from limbeck.task import Task

__all__ = ["Layer", "Taps", "layers", "propose", "untapped"]

_log = logging.getLogger(__name__)


class Taps:
    """A network that is read at named layers: called with a batch, it answers with a `Record`.

    Hooks are placed once, here, and do nothing outside a call of this object: not in plain calls of the
    model, not in the recomputation of activation checkpointing. Several `Taps` on one model do not see each
    other. The model may be compiled before or after, and wrapped (DDP): paths are those of the bare network.

    The first call checks itself by `dry`, if that was not done before.

    Args:
        model: the network; it is neither copied nor changed.
        paths: `module[.input][#call][:part]`: "layer3" is what layer3 returns, "fc.input" what enters fc,
            "relu#2" the second call of a module that is called several times, "block:1" or "block:hidden" a
            part of a tuple or mapping; without a part, the first tensor.
        task: how a batch enters the model.
        trainable: the values carry gradient to the network, as a student's do in training.
        overwritten: what to do where a later layer changes a value in place: refuse, or copy that value.

    Raises:
        RequestError: a path names no module; with the nearest names.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        *,
        task: Task,
        trainable: bool,
        overwritten: Literal["refuse", "copy"] = "refuse",
    ) -> None:
        if overwritten not in ("refuse", "copy"):
            raise RequestError(f'overwritten={overwritten!r}; needed "refuse" or "copy"')
        if isinstance(paths, str):
            raise RequestError(f"paths {paths!r} are one string; needed a list", fix=f"[{paths!r}]")
        self.model = model
        self.paths = tuple(dict.fromkeys(paths))
        self.task = task
        self.trainable = trainable
        self.overwritten = overwritten
        self._state = State()
        self._wants = {text: Want(resolve(model, text)) for text in self.paths}
        # The parameters that each value is computed from; None before the dry pass.
        self._feeds: dict[str, tuple[str, ...]] | None = None
        self._handles = place(self._wants, self._state)
        # A model outlives the taps that were tried on it: hooks that nobody can use any more are taken off.
        weakref.finalize(self, _take_off, self._handles).atexit = False
        _forget_compiled(model, self.paths)

    def __call__(self, batch: Mapping[str, Any], *, output: bool = True) -> Record:
        """Runs the network once.

        Args:
            batch: a batch in the task's normal form.
            output: false stops the forward after the last value that is read (where the network is not
                compiled), and the record has no output.

        Raises:
            RequestError: a layer was not called, or called several times and no call is named, or
                its value has no gradient although the network trains.
        """
        with part("student" if self.trainable else "teacher"):
            if not self._wants:
                return Record(self.task.call(self.model, batch) if output else None)
            if self._feeds is None:
                self.dry(batch)
            with _side_effects_under_checkpoint(self.model):
                said, values = self._run(self.model, batch, stop=not output)
            self._check_gradient(values)
            return Record(said, values)

    def dry(self, batch: Any) -> dict[str, torch.Size]:
        """One checked pass on a batch, as in training where `trainable`; the network is left as it was.

        Returns:
            The shape of each value by its path.

        Raises:
            RequestError: a path never fires, is called several times without a call named, gives no tensor,
                is changed in place afterwards, or has no gradient; with the nearest layer that does better.
        """
        batch = self.task.batch(batch)
        self._state.checks = {} if self._wants else None
        try:
            with undisturbed(self.model, training=self.trainable) as network:
                _, values = self._run(network, beside(network, batch), stop=False)
        except NotCalledError as error:
            raise self._never_fires(error.want.path, batch) from None
        finally:
            checks, self._state.checks = self._state.checks or {}, None
        for text, value in values.items():
            if self.trainable:
                _check_trains(text, value, checks[text])
            if version_of(value) != checks[text].version:
                self._changed_in_place(self._wants[text], batch)
        self._feeds = self._parameters_behind(values) if self.trainable else {}
        return {text: value.shape for text, value in values.items()}

    def remove(self) -> None:
        """Takes the hooks off the model; the object cannot be called any more."""
        _take_off(self._handles)

    def _run(self, model: nn.Module, batch: Mapping[str, Any], stop: bool) -> tuple[Any, dict[str, Tensor]]:
        """Calls the model with recording on: what it said and the values by path, in the order asked for."""
        if self._wants and not self._handles:
            raise RequestError("these taps were removed from their model", fix="place new: Taps(model, ...)")
        state = self._state
        state.begin(len(self._wants) if stop else None)
        try:
            said = self.task.call(model, batch)
        except Stop as reached:
            if reached.state is not state:
                raise
            said = None
        finally:
            values, calls = state.end()
        for text, want in self._wants.items():
            if want.path.call is None and calls.get(want.key, 0) > 1:
                raise _name_a_call(want.path, calls[want.key])
            if text not in values:
                if calls.get(want.key, 0):
                    raise _name_a_call(want.path, calls[want.key])
                raise NotCalledError(want)
        return None if stop else said, {text: values[text] for text in self.paths}

    def _check_gradient(self, values: Mapping[str, Tensor]) -> None:
        """Refuses values cut off from parameters that train; a frozen stage below a value is no fault."""
        if not self.trainable or not torch.is_grad_enabled() or not plain(self.model).training:
            return
        cut = [text for text, value in values.items() if not value.requires_grad]
        if not cut:
            return
        named = plain(self.model).named_parameters()
        trained = {name for name, parameter in named if parameter.requires_grad}
        for text in cut:
            behind = trained.intersection((self._feeds or {}).get(text, ()))
            if behind:
                raise RequestError(
                    f"layer {text!r} has no gradient in training, though {min(behind)} trains",
                    fix=_NO_GRADIENT_FIX,
                )

    def _parameters_behind(self, values: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
        names = {id(parameter): name for name, parameter in plain(self.model).named_parameters()}
        return {
            text: tuple(names[leaf] for leaf in _leaves(value) if leaf in names)
            for text, value in values.items()
        }

    def _never_fires(self, path: TapPath, batch: Mapping[str, Any]) -> RequestError:
        fired = survey(self.model, batch, self.task, training=self.trainable).fired()
        return RequestError(
            f"layer {path.text!r} is never called: what holds it computes without calling it",
            near=nearest_fired(path.name, fired),
            fix="tap a layer that is called",
        )

    def _changed_in_place(self, want: Want, batch: Mapping[str, Any]) -> None:
        """Marks a value to be copied, or refuses it, naming the layer that holds it in its last state."""
        if self.overwritten == "copy":
            want.copy = True
            return
        later = _last_state(survey(self.model, batch, self.task, training=self.trainable), want.path)
        raise RequestError(
            f"layer {want.path.text!r} is changed in place after it returned, so its record would be wrong",
            near=later,
            fix=(f'tap "{later[0]}", which holds the changed value, or ' if later else "")
            + 'copy it: Taps(..., overwritten="copy")',
        )


def untapped(model: nn.Module) -> nn.Module:
    """A copy of a network without the hooks of any `Taps`, compilation and data parallelism.

    Hooks of others stay. What a module keeps of its last forward, as an auxiliary loss, is copied detached.
    """
    kept = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in [*vars(module).values(), *module._buffers.values()]
        if isinstance(value, Tensor) and not value.is_leaf
    }
    network = copy.deepcopy(plain(model), kept)
    for module in network.modules():
        for hooks, marks in (
            (module._forward_hooks, module._forward_hooks_with_kwargs),
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
        ):
            for key in [key for key, hook in hooks.items() if isinstance(hook, Hook)]:
                del hooks[key]
                marks.pop(key, None)
    return network


def _take_off(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()


def _forget_compiled(model: nn.Module, paths: Sequence[str]) -> None:
    """Code compiled before the hooks were placed does not know them; dynamo does not look for new ones."""
    if paths and is_compiled(model):
        torch.compiler.reset()
        _log.warning(
            "%s was compiled before its taps were placed: it is compiled anew at its next call",
            type(plain(model)).__name__,
        )


@contextmanager
def _side_effects_under_checkpoint(model: nn.Module) -> Iterator[None]:
    """Lets dynamo trace hooks inside activation checkpointing of a compiled network.

    It refuses side effects there, since it cannot repeat them in the recomputation; ours must not be
    repeated. Set for the length of a tapped call alone.
    """
    if not is_compiled(model):
        yield
        return
    import torch._dynamo

    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
        yield


_NO_GRADIENT_FIX = (
    "use checkpoint(..., use_reentrant=False), and no torch.no_grad() or detach() on the way to this layer"
)


def _check_trains(text: str, value: Tensor, check: Check) -> None:
    if value.requires_grad:
        return
    if not (value.is_floating_point() or value.is_complex()):
        kind = str(value.dtype).removeprefix("torch.")
        reason, fix = f"holds {kind}, which has no gradient", "tap another layer"
    elif not check.gradient:
        reason, fix = (
            "has no gradient in training: it is computed with gradient off, as in reentrant "
            "activation checkpointing or under torch.no_grad()",
            _NO_GRADIENT_FIX,
        )
    else:
        reason, fix = (
            "has no gradient in training: no parameter lies before it, or it is detached from them",
            "tap a later layer",
        )
    raise RequestError(f"layer {text!r} of the student {reason}", fix=fix)


def _name_a_call(path: TapPath, calls: int) -> RequestError:
    suffix = "".join(f":{part}" for part in path.parts)
    each = [f"{path.layer}#{call}{suffix}" for call in range(1, calls + 1)]
    return RequestError(
        f"layer {path.text!r}: {path.layer} is called {calls} times in one forward"
        if path.call is None
        else f"layer {path.text!r}: {path.layer} is called {calls} time{'s' * (calls > 1)} only",
        near=each,
        fix=f"name the call, as {each[0]!r}",
    )


def _leaves(value: Tensor) -> set[int]:
    """Identities of the leaf tensors that a value was computed from."""
    found: set[int] = {id(value)} if value.is_leaf else set()
    nodes: list[Any] = [value.grad_fn]
    seen: set[Any] = {None}
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # an AccumulateGrad node names its leaf
        if isinstance(leaf, Tensor):
            found.add(id(leaf))
        nodes.extend(following for following, _ in node.next_functions)
    return found


def _last_state(seen: Survey, path: TapPath) -> list[str]:
    """Layers whose value is the same tensor as a path's, after the last change; outermost first."""
    mine = [event.value for event in seen.calls(path.name) if event.value is not None]
    later = [
        event
        for event in seen.events
        if any(event.value is value for value in mine) and not event.overwritten
    ]
    many = {event.name for event in seen.events if event.call > 1}
    later.sort(key=lambda event: event.name.count("."))
    return [f"{event.name}#{event.call}" if event.name in many else event.name for event in later]
