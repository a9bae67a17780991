"""Batch norms folded into the layers before them: the same values from fewer passes over memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limbeck._taps.paths import module_names
from limbeck._taps.survey import beside, undisturbed
from limbeck.task import Task
from limbeck.task.batches import first_samples

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FOLDED = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold(network: nn.Module, batch: Mapping[str, Any], task: Task, tapped: Iterable[str] = ()) -> int:
    """Folds every batch norm that is the only reader of a convolution or linear layer, in place.

    Who reads what is seen in one pass; a network whose forward decides by the values of its inputs may do
    otherwise in another. A norm becomes an identity, so paths go on meaning what they did.

    Args:
        network: in eval mode.
        batch: a batch in normal form.
        task: how it enters the network.
        tapped: paths of layers whose values must stay.

    Returns:
        How many norms were folded.
    """
    kept = {path.partition("#")[0].partition(":")[0] for path in tapped}
    names = {id(module): name for name, module in reversed(module_names(network).items())}
    pairs = [
        (layer, norm)
        for layer, norm in _pairs(network, batch, task)
        if names[id(layer)] not in kept and f"{names[id(norm)]}.input" not in kept
    ]
    changed = {id(layer): _folded(layer, norm) for layer, norm in pairs}
    changed |= {id(norm): nn.Identity() for _, norm in pairs}
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if id(child) in changed:
                setattr(module, name, changed[id(child)])
    return len(pairs)


def _folded(layer: nn.Module, norm: Any) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, _TRANSPOSED))  # type: ignore[type-var]


@dataclass
class _Readers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees which operations read the outputs of layers, and inside which norm that was."""

    outputs: dict[int, nn.Module] = field(default_factory=dict)
    readers: dict[nn.Module, set[nn.Module | None]] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    inside: nn.Module | None = None

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor) and value.device.type != "meta":
                layer = self.outputs.get(value.untyped_storage().data_ptr())
                if layer is not None:
                    self.readers[layer].add(self.inside)
        return function(*args, **(kwargs or {}))

    def returned(self, layer: nn.Module, output: Any) -> None:
        """Notes what a layer returned; it is kept, so that no other tensor takes its place in memory."""
        if isinstance(output, Tensor):
            self.outputs[output.untyped_storage().data_ptr()] = layer
            self.readers[layer] = set()
            self.kept.append(output)


def _pairs(network: nn.Module, batch: Mapping[str, Any], task: Task) -> list[tuple[nn.Module, nn.Module]]:
    """Layers whose output one batch norm alone reads; both are called once, and no one else hooks them."""
    calls: dict[nn.Module, int] = {}
    seen = _Readers()

    def before(module: nn.Module, inputs: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        seen.inside = module if type(module) in _NORMS else seen.inside

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        if type(module) in _NORMS:
            seen.inside = None
        else:
            seen.returned(module, output)

    with undisturbed(network, training=False) as calm, ExitStack() as hooks:
        looked = [module for module in calm.modules() if type(module) in (*_FOLDED, *_NORMS)]
        free = {module for module in looked if not module._forward_hooks and not module._forward_pre_hooks}
        for module in looked:
            hooks.callback(module.register_forward_pre_hook(before).remove)
            hooks.callback(module.register_forward_hook(after).remove)
        with torch.no_grad(), seen:
            last = task.call(calm, beside(calm, first_samples(batch, 2)))
    del last
    pairs = []
    for layer, readers in seen.readers.items():
        norm = next(iter(readers)) if len(readers) == 1 else None
        if norm is None or calls[layer] > 1 or calls[norm] > 1 or not {layer, norm} <= free:
            continue
        if getattr(norm, "running_var", None) is not None:
            pairs.append((layer, norm))
    return pairs
