"""Networks of timm, by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from limbeck.errors import RequestError, nearest, require
from limbeck.models.building import (
    PRETRAINED,
    Architecture,
    Plan,
    Raw,
    Wanted,
    arguments,
    check_options,
    flag,
    without,
)
from limbeck.models.preprocessing import Preprocessing, statistics

#: Arguments that limbeck gives itself.
_GIVEN = ("num_classes", "in_chans", "img_size", "device", "dtype")
#: Read as data; other forms of weights are fetched by timm alone.
_FILE = "model.safetensors"


def plan(spec: str, name: str, wanted: Wanted) -> Plan:
    """Channels, size and statistics of a network: those of its published weights where it has weights."""
    config = _config(name)
    own_channels, *own_size = config.input_size
    sample = wanted.sample
    fixed = wanted.trained or config.fixed_input_size
    channels = wanted.channels or (own_channels if wanted.trained else sample.channels)
    size = wanted.size or (tuple(own_size) if fixed else sample.size)
    resized = None if size == sample.size else (size[0], size[1])
    mean, std = statistics({"mean": config.mean, "std": config.std}, own_channels)
    if channels != own_channels:
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    wants = Preprocessing("image", channels, resized, mean, std)
    return Plan(Architecture(spec, wanted.num_classes, channels, size, wanted.options), wants)


def build(name: str, architecture: Architecture) -> Raw:
    """The network, with its published weights where the option `pretrained` asks for them."""
    timm = require("timm", "vision", f"model {architecture.spec!r}")
    config = _config(name)
    options = without(architecture.options, PRETRAINED)
    if options:
        check_options(architecture.spec, options, _options(timm, name))
    notes = []
    if flag(architecture.options, "pretrained", architecture.spec):
        options["pretrained"] = True
        if not flag(architecture.options, "download", architecture.spec):
            options["pretrained_cfg_overlay"] = {"file": str(_stored(architecture.spec, config))}
        if architecture.num_classes != config.num_classes:
            notes.append(
                f"{architecture.spec}: its published weights know {config.num_classes} classes; "
                "the last layer starts at random"
            )
    if config.fixed_input_size and tuple(config.input_size[1:]) != architecture.size:
        options["img_size"] = architecture.size
    network = timm.create_model(
        name, num_classes=architecture.num_classes, in_chans=architecture.channels, **options
    )
    return Raw(network, notes=notes)


def _config(name: str) -> Any:
    """What timm says of a model's published weights.

    Raises:
        RequestError: timm has no such model or no such weights of it.
    """
    timm = require("timm", "vision", f'model "timm:{name}"')
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = [f"timm:{found}" for found in nearest(architecture, timm.list_models())]
        raise RequestError(f"timm has no model {architecture!r}", near=near)
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise RequestError(f"timm has no weights {tag!r} of {architecture}", near=nearest(tag, tags) or tags)
    return timm.get_pretrained_cfg(name)


def _options(timm: Any, name: str) -> list[str]:
    """The arguments that a model's class takes, seen without allocating its weights."""
    with torch.device("meta"):
        network = timm.create_model(name)
    plain = (str, int, float, bool, tuple, type(None))
    return [
        option
        for option, parameter in arguments(type(network).__init__).items()
        if option not in _GIVEN
        and (parameter.default is inspect.Parameter.empty or isinstance(parameter.default, plain))
    ]


def _stored(spec: str, config: Any) -> Path:
    """The file of published weights on this machine."""
    hub = require("huggingface_hub", "vision", f"model {spec!r}")
    found = hub.try_to_load_from_cache(config.hf_hub_id, _FILE) if config.hf_hub_id else None
    if isinstance(found, str):
        return Path(found)
    raise RequestError(
        f"{spec}: its published weights are not on this machine",
        fix="options = { pretrained = true, download = true } lets them be fetched",
    )
