"""Classification networks of torchvision, by name."""

from __future__ import annotations

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
from limbeck.models.preprocessing import NAMED, Preprocessing
from limbeck.models.weights import load_but_head, read_state

#: Arguments that limbeck gives itself, and those that are no plain values.
_GIVEN = ("num_classes", "weights", "progress", "image_size", "block", "layers", "norm_layer")
_SIDE = 224


def plan(spec: str, name: str, wanted: Wanted) -> Plan:
    """Three channels, ImageNet's statistics; 224 pixels where the size is fixed or weights are given."""
    fixed = wanted.trained or "image_size" in _known(_torchvision(spec), spec, name)
    size = wanted.size or ((_SIDE, _SIDE) if fixed else wanted.sample.size)
    resized = None if size == wanted.sample.size else (size[0], size[1])
    wants = Preprocessing("image", 3, resized, *NAMED["imagenet"])
    if wanted.channels not in (None, 3):
        raise RequestError(f"{spec} takes 3 channels, not {wanted.channels}", fix="leave channels out")
    return Plan(Architecture(spec, wanted.num_classes, 3, size, wanted.options), wants)


def build(name: str, architecture: Architecture) -> Raw:
    """The network, with its published weights where the option `pretrained` asks for them."""
    spec = architecture.spec
    torchvision = _torchvision(spec)
    known = _known(torchvision, spec, name)
    if architecture.channels != 3:
        raise RequestError(
            f"{spec} takes 3 channels, not {architecture.channels}", fix="channels = 3, or a timm model"
        )
    options = without(architecture.options, PRETRAINED)
    check_options(spec, options, [option for option in known if option not in _GIVEN])
    if "image_size" in known and architecture.size and architecture.size[0] == architecture.size[-1]:
        options["image_size"] = architecture.size[0]
    network = torchvision.models.get_model(name, num_classes=architecture.num_classes, **options)
    if not flag(architecture.options, "pretrained", spec):
        return Raw(network)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    stored = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if flag(architecture.options, "download", spec):
        _fetch(weights.url, stored)
    if not stored.is_file():
        raise RequestError(
            f"{spec}: its published weights are not on this machine",
            fix="options = { pretrained = true, download = true } lets them be fetched",
        )
    notes = load_but_head(network, read_state(stored), spec)
    classes = list(weights.meta["categories"])
    return Raw(network, classes if len(classes) == architecture.num_classes else None, notes)


def _fetch(url: str, file: Path) -> None:
    """Downloads published weights, unless they are here; their name holds the start of their checksum."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        prefix = file.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(file), hash_prefix=prefix, progress=False)


def _torchvision(spec: str) -> Any:
    return require("torchvision", "vision", f"model {spec!r}")


def _known(torchvision: Any, spec: str, name: str) -> list[str]:
    """The arguments of a network's class, seen without allocating its weights.

    Raises:
        RequestError: torchvision has no such classification model.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise RequestError(
            f"torchvision has no classification model {name!r}",
            near=[f"torchvision:{found}" for found in nearest(name, names)],
        )
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
    return list(arguments(type(network).__init__))
