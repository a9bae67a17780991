"""Batch norms folded into the layers before them: the same values from fewer passes over memory."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limbeck._taps.paths import resolve
from limbeck._taps.survey import beside, undisturbed
from limbeck.task import Task
from limbeck.task.batches import first_samples

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FOLDED = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
#: The dimensions of an output whose second one is the channels, of the layer as of the norm after it.
_DIMENSIONS = {
    nn.Linear: 2,
    **{kind: 3 + place for kinds in (_CONVOLUTIONS, _TRANSPOSED) for place, kind in enumerate(kinds)},
}


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
    pairs = _pairs(network, batch, task, tapped)
    for layer, norm in pairs:
        folded = _folded(layer, norm)
        # Put into the layer itself: the network may hold it elsewhere too, in a list.
        layer.weight, layer.bias = folded.weight, folded.bias
    replaced = {norm: _what_stays(norm) for _, norm in pairs}
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if child in replaced:
                module._modules[name] = replaced[child]
    return len(pairs)


def _folded(layer: nn.Module, norm: Any) -> Any:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, _TRANSPOSED))  # type: ignore[type-var]


def _what_stays(norm: nn.Module) -> nn.Module:
    """What stands in the place of a norm: timm's hold an activation too, under the same name as before."""
    children = OrderedDict((name, child) for name, child in norm._modules.items() if child is not None)
    return nn.Sequential(children) if children else nn.Identity()


def _kinds_of_norms() -> tuple[type[nn.Module], ...]:
    """Batch norms, and what libraries that are loaded compute in the same way. Other subclasses may not."""
    others = (("timm.layers", "BatchNormAct2d"), ("torchvision.ops", "FrozenBatchNorm2d"))
    known = [getattr(sys.modules[module], name) for module, name in others if module in sys.modules]
    return (*_NORMS, *known)


@dataclass
class _Readers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees which operations read the outputs and the weights of layers, and inside which layer that was.

    Args:
        readers: for each layer that returned, the layers that read what it returned; None is anybody else.
        shared: layers whose weights someone else reads.
        inside: the layer that is computing, if any.
    """

    readers: dict[nn.Module, set[nn.Module | None]] = field(default_factory=dict)
    shared: set[nn.Module] = field(default_factory=set)
    calls: dict[nn.Module, int] = field(default_factory=dict)
    inside: nn.Module | None = None
    outputs: dict[int, nn.Module] = field(default_factory=dict)
    weights: dict[int, nn.Module] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read((args, kwargs or {}), self.inside)
        return function(*args, **(kwargs or {}))

    def read(self, values: Any, reader: nn.Module | None) -> None:
        """Notes that a layer, or anybody else, reads all tensors in nested values."""
        for place in _places(values):
            if place in self.outputs:
                self.readers[self.outputs[place]].add(reader)
            if place in self.weights and self.weights[place] is not reader:
                self.shared.add(self.weights[place])

    def watch(self, layer: nn.Module) -> None:
        """Looks at a layer's weights from now on."""
        own = [*layer._parameters.values(), *layer._buffers.values()]
        self.weights |= dict.fromkeys(_places(own), layer)

    def before(self, layer: nn.Module, inputs: Any) -> None:
        """A hook: a layer begins."""
        self.calls[layer] = self.calls.get(layer, 0) + 1
        self.inside = layer

    def after(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """A hook: a layer returned. Its output is kept, so that no other tensor takes its place in memory."""
        self.inside = None
        if isinstance(output, Tensor) and output.ndim == _DIMENSIONS.get(type(layer)):
            self.outputs |= dict.fromkeys(_places(output), layer)
            self.readers[layer] = set()
            self.kept.append(output)

    def ends(self, layer: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
        """A hook: someone reads what a layer returns."""
        self.read(output, None)

    def begins(self, layer: nn.Module, inputs: Any, keywords: Any) -> None:
        """A hook: someone reads what enters a layer."""
        self.read((inputs, keywords), None)


def _places(values: Any) -> Iterator[int]:
    """Where in memory all tensors in nested values begin."""
    for value in tree_leaves(values):
        if isinstance(value, Tensor) and value.layout is torch.strided and value.device.type != "meta":
            yield value.untyped_storage().data_ptr()


def _pairs(
    network: nn.Module, batch: Mapping[str, Any], task: Task, tapped: Iterable[str]
) -> list[tuple[Any, nn.Module]]:
    """Layers whose output one batch norm alone reads; both are called once, and no one else hooks them."""
    norms, seen = _kinds_of_norms(), _Readers()
    looked = [module for module in network.modules() if type(module) in (*_FOLDED, *norms)]
    free = {layer for layer in looked if not layer._forward_hooks and not layer._forward_pre_hooks}
    with undisturbed(network, training=False) as calm, _watching(calm, looked, tapped, seen):
        task.call(calm, beside(calm, first_samples(batch, 2)))
    pairs = []
    for layer, readers in seen.readers.items():
        norm = next(iter(readers)) if len(readers) == 1 else None
        if norm is None or type(norm) not in norms or not {layer, norm} <= free - seen.shared:
            continue
        if seen.calls[layer] == seen.calls[norm] == 1 and _can_be_folded(layer, norm):
            pairs.append((layer, norm))
    return pairs


@contextmanager
def _watching(
    network: nn.Module, looked: Iterable[nn.Module], tapped: Iterable[str], seen: _Readers
) -> Iterator[None]:
    """Inside, it is seen who reads what; the taps and the caller of the network read, too."""
    with torch.no_grad(), ExitStack() as hooks:
        for layer in looked:
            seen.watch(layer)
            hooks.callback(layer.register_forward_pre_hook(seen.before).remove)
            hooks.callback(layer.register_forward_hook(seen.after).remove)
        hooks.callback(network.register_forward_hook(seen.ends, with_kwargs=True).remove)
        for path in (resolve(network, text) for text in tapped):
            if path.entering:
                handle = path.module.register_forward_pre_hook(seen.begins, with_kwargs=True)
            else:
                handle = path.module.register_forward_hook(seen.ends, with_kwargs=True)
            hooks.callback(handle.remove)
        with seen:
            yield


def _can_be_folded(layer: nn.Module, norm: Any) -> bool:
    """Whether torch's own folding holds: running statistics, and weights that lie as it takes them to."""
    if norm.running_var is None or norm.running_mean is None:
        return False
    if isinstance(layer, nn.Linear):
        return norm.weight is not None
    return not (isinstance(layer, _TRANSPOSED) and layer.groups > 1)
