"""Batches in normal form: what is in them, what a model is given of them."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)

Over = Literal["samples", "targets"]


def denominator(batch: Mapping[str, Any], over: Over, own: float | Tensor) -> float | Tensor:
    """What a sum over a batch is divided by to become a mean.

    A loop that cuts a batch into micro-batches or over processes gives `batch["count"]`: the number of
    samples and of targets over all of them, divided by their number. Sums divided by it, averaged over
    micro-batches and processes, equal the mean over the whole batch exactly.

    Args:
        batch: the batch in normal form.
        over: `samples`, or `targets` (labelled samples, valid tokens).
        own: the count within this batch, used where the loop gave none.
    """
    count = batch.get("count")
    return own if count is None else cast(float, count[over])


def declared(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a model's forward declares; all of them when it takes any keyword.

    What a model is not given is said once for its class.
    """
    names, takes_any = inputs_of(model)
    if takes_any:
        return dict(inputs)
    withheld = tuple(sorted(set(inputs) - set(names)))
    if withheld:
        _say_withheld(type(_innermost(model)).__name__, withheld)
    return {key: value for key, value in inputs.items() if key in names}


def inputs_of(model: nn.Module) -> tuple[list[str], bool]:
    """The names of the inputs that a model's forward declares, and whether it takes any keyword besides."""
    parameters = inspect.signature(_innermost(model).forward).parameters.values()
    names = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


@functools.cache
def _say_withheld(model: str, names: tuple[str, ...]) -> None:
    _log.warning("%s takes no %s: not given to it", model, ", ".join(names))


def as_model_type(model: nn.Module, inputs: Any) -> Any:
    """Floating inputs in the floating type of the model's first floating parameter."""
    if (
        not isinstance(inputs, Tensor)
        or not inputs.is_floating_point()
        or torch.is_autocast_enabled(inputs.device.type)
    ):
        return inputs
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return inputs.to(parameter.dtype)
    return inputs


def _innermost(model: nn.Module) -> nn.Module:
    """The network inside wrappers of compilation, data parallelism and preprocessing."""
    for name in ("_orig_mod", "module", "body"):
        inner = model._modules.get(name)
        if inner is not None and len(model._modules) <= 2:
            return _innermost(inner)
    return model


def num_samples(batch: Mapping[str, Any]) -> int:
    """The number of samples of a batch in normal form."""
    for key in ("index", "targets"):
        value = batch.get(key)
        if isinstance(value, Tensor) and value.ndim:
            return len(value)
    inputs = batch["inputs"]
    first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
    return len(first)


def device_of_inputs(inputs: Any) -> torch.device:
    """Where the first tensor of nested inputs is; the processor where there is none."""
    while isinstance(inputs, (Mapping, list, tuple)):
        inputs = next(iter(inputs.values() if isinstance(inputs, Mapping) else inputs))
    return inputs.device if isinstance(inputs, Tensor) else torch.device("cpu")


def first_samples(batch: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The first samples of a batch in normal form; what has not one row a sample stays as it is."""
    samples = num_samples(batch)

    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: cut(item) for key, item in value.items()}
        rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == samples
        return value[:number] if rows else value

    return {key: cut(value) for key, value in batch.items()}


def move(value: Any, device: torch.device | str) -> Any:
    """Every tensor in nested mappings, lists and tuples on a device; other values as they are."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(move(item, device) for item in value)
    return value
