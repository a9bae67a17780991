"""One pass through a network that leaves it as it was, and what every module took part in it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from limbeck._taps.paths import first_tensor, module_names, plain
from limbeck.task import Task, move


@dataclass
class Event:
    """One call of one module, noted when it returned.

    Args:
        name: the module, as in the unwrapped network; `call`: which of its calls, from 1.
        value: the first tensor it returned, if any; `version` its in-place counter at that time.
        whole: the type and number of parts of what it returned, as `tuple of 2`; empty for a bare tensor.
        flops: floating-point operations inside the call; `done`: those of the pass until it returned.
    """

    name: str
    module: nn.Module
    call: int
    value: Tensor | None
    version: int
    whole: str
    flops: int
    done: int

    @property
    def overwritten(self) -> bool:
        """Whether something changed the value in place after the module returned it."""
        return self.value is not None and version_of(self.value) != self.version


@dataclass
class Survey:
    """All calls of a pass in the order in which they returned, and the output that the task read."""

    events: list[Event]
    output: Any
    flops: int

    def calls(self, name: str) -> list[Event]:
        """The calls of one module."""
        return [event for event in self.events if event.name == name]

    def fired(self) -> list[str]:
        """The modules that were called and returned a tensor."""
        return list(dict.fromkeys(event.name for event in self.events if event.value is not None))


def survey(model: nn.Module, batch: Mapping[str, Any], task: Task, *, training: bool = False) -> Survey:
    """Runs a network once, undisturbed, and notes every call; each value is kept until the survey is dropped.

    Args:
        model: the network.
        batch: a batch in normal form; a small one will do.
        task: how it enters the model.
        training: in train mode and with gradient, as a student in training.
    """
    events: list[Event] = []
    names = {id(module): name for name, module in reversed(module_names(model).items())}
    # Fused attention is not counted on every device; the plain one computes the same and is.
    with undisturbed(model, training=training) as network, _plain_attention(), ExitStack() as hooks:
        counter = hooks.enter_context(FlopCounterMode(display=False))
        begun: list[int] = []
        calls: dict[str, int] = {}

        def before(module: nn.Module, inputs: Any) -> None:
            begun.append(counter.get_total_flops())

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            name = names[id(module)]
            calls[name] = calls.get(name, 0) + 1
            value, done = first_tensor(output), counter.get_total_flops()
            version = 0 if value is None else version_of(value)
            flops = done - begun.pop()
            events.append(Event(name, module, calls[name], value, version, _kind(output), flops, done))

        for module in network.modules():
            if id(module) in names:
                hooks.callback(module.register_forward_pre_hook(before).remove)
                hooks.callback(module.register_forward_hook(after).remove)
        output = task.call(network, beside(network, batch))
        return Survey(events, output, counter.get_total_flops())


def _kind(output: Any) -> str:
    if isinstance(output, Tensor):
        return ""
    kind = type(output).__name__
    return f"{kind} of {len(output)}" if isinstance(output, Sized) else kind


def beside(network: nn.Module, batch: Mapping[str, Any]) -> Any:
    """A batch where the network is."""
    first = next(network.parameters(), None)
    return batch if first is None else move(batch, first.device)


@contextmanager
def _plain_attention() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def version_of(value: Tensor) -> int:
    """How often a value was changed in place; tensors of inference mode do not count."""
    return 0 if value.is_inference() else value._version


def is_compiled(model: nn.Module) -> bool:
    """Whether the network or a part of it goes through `torch.compile`."""
    if "torch._dynamo" not in sys.modules:
        return False
    # Asked at every tapped call: `modules()` would cost ten times as much.
    waiting: list[nn.Module | None] = [model]
    seen: set[nn.Module] = set()
    while waiting:
        module = waiting.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
            return True
        waiting.extend(module._modules.values())
    return False


@contextmanager
def undisturbed(model: nn.Module, *, training: bool) -> Iterator[nn.Module]:
    """Inside, the network can be run eagerly at will; afterwards it is as before, bit for bit.

    Modes, buffers, the `requires_grad` of parameters and all random states are put back. Batch norms stay in
    eval mode, so that a batch of one passes.

    Args:
        model: the network, wrapped or not.
        training: train mode, gradient on, and every parameter requires it: what gets no gradient then is
            cut off from all parameters, not only frozen. False: eval mode, no gradient.

    Yields:
        The network without the wrappers of compilation and data parallelism.
    """
    network = plain(model)
    with ExitStack() as stack:
        _keep_random_state(stack, network)
        if is_compiled(model):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(training))
        stack.callback(_restore_buffers, _buffers(network))
        for module in network.modules():
            stack.callback(setattr, module, "training", module.training)
            module.training = training and not isinstance(module, _BatchNorm)
        for parameter in network.parameters() if training else ():
            if parameter.is_leaf and (parameter.is_floating_point() or parameter.is_complex()):
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(True)
        yield network


def _keep_random_state(stack: ExitStack, network: nn.Module) -> None:
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    stack.enter_context(torch.random.fork_rng(devices=list(devices)))
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())


_Buffer = tuple[nn.Module, str, Tensor | None, Tensor | None]


def _buffers(network: nn.Module) -> list[_Buffer]:
    return [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
    ]


def _restore_buffers(buffers: list[_Buffer]) -> None:
    for module, name, buffer, content in buffers:
        module._buffers[name] = buffer
        # Written only where it changed: a graph of the caller's may have saved it.
        if buffer is not None and content is not None and not _equal(buffer, content):
            with torch.no_grad():
                buffer.copy_(content)


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.layout != torch.strided:  # torch compares no sparse tensors
        one, other = one.to_dense(), other.to_dense()
    return torch.equal(one, other)
