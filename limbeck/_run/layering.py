"""The layers of a model by name, shown on inputs that are made up for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from limbeck._run.listings import Listing
from limbeck._show.tables import Table
from limbeck.errors import RequestError
from limbeck.models.folder import load
from limbeck.models.registry import check_spec, prepare
from limbeck.taps import Layer, layers
from limbeck.task import Classification

#: What a model is shown where nothing is said: a colour picture of 32x32, ten classes, eight words.
_SIZE, _CHANNELS, _CLASSES, _TOKENS, _SAMPLES = 32, 3, 10, 8, 2


def layers_of(
    model: str | nn.Module, size: int | None, channels: int | None, classes: int | None, example: Any = None
) -> Listing:
    """The layers of a model; see `limbeck.list_layers`."""
    for name, value in (("size", size), ("channels", channels), ("classes", classes)):
        if value is not None and value < 1:
            raise RequestError(f"{name} is {value}: at least 1 is needed", fix=f"leave {name} out")
    if example is not None and (size or channels):
        raise RequestError("size and channels are those of the example", fix="leave them out")
    if isinstance(model, str) and check_spec(model).source == "folder":
        network, inputs = _finished(model, size, channels, classes)
        inputs = inputs if example is None else example
    else:
        inputs = _inputs(model, size, channels) if example is None else example
        network = model if isinstance(model, nn.Module) else _network(model, inputs, size, channels, classes)
    found = _shown(network.eval(), inputs, classes)
    rows = [_row(layer) for layer in found]
    head = ("path", "kind", "shape", ">calls", ">parameters", ">compute", "note")
    pairs = 'taps: [method] taps = { student = ["PATH"], teacher = ["PATH"] }'
    notes = ("", f"shown {_described(inputs)}; {pairs}")
    entries = [{**dataclasses.asdict(layer), "shape": layer.shape and layer.shape[1:]} for layer in found]
    return Listing("layers", entries, Table(head, rows, notes))


def _shown(network: nn.Module, inputs: Any, classes: int | None) -> list[Layer]:
    try:
        return layers(network, {"inputs": inputs}, Classification(classes))
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        said = str(error).partition("\n")[0]
        raise RequestError(
            f"the model does not take {_described(inputs)}: {said}",
            fix="--size and --channels, or list_layers(model, example=INPUTS)",
        ) from error


def _described(inputs: Any) -> str:
    if isinstance(inputs, torch.Tensor):
        return "x".join(str(side) for side in inputs.shape[1:]) or "a number"
    return " and ".join(inputs) if isinstance(inputs, Mapping) else f"a {type(inputs).__name__}"


def _finished(
    folder: str, size: int | None, channels: int | None, classes: int | None
) -> tuple[nn.Module, Any]:
    """A student from its folder, and inputs of the form that it was trained on."""
    loaded = load(folder)
    built = loaded.architecture
    for name, given, own in (("channels", channels, built.channels), ("classes", classes, built.num_classes)):
        if given not in (None, own):
            raise RequestError(f"{name} {given}: the network in {folder} has {own}", fix=f"leave {name} out")
    if not built.channels:
        return loaded.network, words()
    sides = (size, size) if size and built.size else built.size
    return loaded.network, torch.rand(_SAMPLES, built.channels, *sides)


def made_up(model: str, size: int | None, channels: int | None) -> tuple[nn.Module, Any]:
    """A model of the registry, and inputs that it takes."""
    inputs = _inputs(model, size, channels)
    return _network(model, inputs, size, channels, None), inputs


def _inputs(model: str | nn.Module, size: int | None, channels: int | None) -> Any:
    if isinstance(model, str) and size is None and channels is None and check_spec(model).source == "hf":
        return words()
    if model == "mlp":
        return torch.rand(_SAMPLES, channels or size or _SIZE)
    side = size or _SIZE
    return torch.rand(_SAMPLES, channels or _CHANNELS, side, side)


def words(samples: int = _SAMPLES) -> dict[str, torch.Tensor]:
    """Inputs of a network for texts."""
    ids = torch.ones(samples, _TOKENS, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _network(
    model: str, inputs: Any, size: int | None, channels: int | None, classes: int | None
) -> nn.Module:
    """The body of a network of the registry; channels and size are the model's own unless given."""
    side = size if isinstance(inputs, torch.Tensor) and inputs.ndim == 4 else None
    built = prepare(model, num_classes=classes or _CLASSES, inputs=inputs, size=side, channels=channels)
    return built.network


def _row(layer: Layer) -> tuple[str, ...]:
    shape = "" if layer.shape is None else "x".join(str(side) for side in layer.shape[1:])
    note = layer.note if layer.observable else f"not observable; {layer.note}".rstrip("; ")
    calls = "" if layer.calls == 1 else str(layer.calls)
    return (layer.path, layer.kind, shape, calls, f"{layer.parameters:,}", f"{layer.share:.1%}", note)
