"""How a student's weights and configuration lie in its folder, by the library that shall load them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.errors import require
from limbeck.models.building import PRETRAINED, Architecture, Source, without
from limbeck.models.from_hugging_face import quiet
from limbeck.models.preprocessing import Preprocessed


def write_weights(file: Path, body: nn.Module) -> dict[str, str]:
    """Writes the state of a network, each tensor once.

    Returns:
        For each name that shares its tensor with one written, the name of that one.
    """
    stored, tied = each_once(body.state_dict())
    save_file(stored, file, metadata={"format": "pt"})
    return tied


def each_once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a state without repetition, on the CPU, and the names of those left out."""
    stored: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, value in state.items():
        place = (value.device, value.data_ptr(), value.shape, value.stride())
        if value.numel() and place in first:
            tied[name] = first[place]
            continue
        first[place] = name
        copy = value.detach().cpu().contiguous()
        # Part of a larger tensor: safetensors takes only whole ones.
        whole = copy.untyped_storage().nbytes() == copy.numel() * copy.element_size()
        stored[name] = copy if whole else copy.clone()
    return stored, tied


def tie(network: nn.Module, tied: Mapping[str, str]) -> None:
    """Makes the named parameters one again, where building the network has not done so."""
    for name, other in tied.items():
        module, attribute = _holder(network, name)
        other_module, other_attribute = _holder(network, other)
        one = getattr(other_module, other_attribute)
        if getattr(module, attribute) is not one:
            setattr(module, attribute, one)


def _holder(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, attribute = name.rpartition(".")
    return network.get_submodule(module), attribute


def timm(network: Preprocessed, architecture: Architecture, classes: Sequence[str]) -> dict[str, Any]:
    """The configuration of a timm model, as `timm.create_model("local-dir:FOLDER")` reads it."""
    wants = network.preprocessing
    own = getattr(network.body, "pretrained_cfg", {})
    config = {key: own[key] for key in ("first_conv", "classifier", "fixed_input_size") if key in own}
    config |= {
        "input_size": [wants.channels, *(architecture.size)],
        "mean": list(wants.mean or (0.0,) * wants.channels),
        "std": list(wants.std or (1.0,) * wants.channels),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "num_classes": architecture.num_classes,
    }
    arguments: dict[str, Any] = {"in_chans": wants.channels, **without(architecture.options, PRETRAINED)}
    if own.get("fixed_input_size") and tuple(own["input_size"][1:]) != architecture.size:
        arguments["img_size"] = list(architecture.size)
    return {
        "architecture": architecture.spec.removeprefix("timm:").partition(".")[0],
        "num_classes": architecture.num_classes,
        "num_features": getattr(network.body, "num_features", None),
        "model_args": arguments,
        "pretrained_cfg": config,
        **({"label_names": list(classes)} if classes else {}),
    }


def hugging_face(folder: Path, network: Preprocessed, classes: Sequence[str]) -> dict[str, Any]:
    """Writes weights and image settings as transformers does, and gives its configuration."""
    body: Any = network.body
    with quiet():
        body.save_pretrained(folder, safe_serialization=True)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if classes:
        config["id2label"] = {str(number): name for number, name in enumerate(classes)}
        config["label2id"] = {name: number for number, name in enumerate(classes)}
    wants = network.preprocessing
    if wants.kind == "image":
        size = wants.size or _image_size(config)
        settings = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": size is not None,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": bool(wants.mean),
            "image_mean": list(wants.mean),
            "image_std": list(wants.std),
            "resample": 2,  # bilinear
            **({"size": {"height": size[0], "width": size[1]}} if size else {}),
        }
        text = json.dumps(settings, indent=2) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    return config


def tokenizer(folder: Path, name: str) -> None:
    """Puts the tokenizer of the training data beside the weights."""
    transformers = require("transformers", "text", f"tokenizer {name!r}")
    with quiet():
        transformers.AutoTokenizer.from_pretrained(name, local_files_only=True).save_pretrained(folder)


def _image_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    size = config.get("image_size")
    if isinstance(size, int):
        return size, size
    return (size[0], size[1]) if isinstance(size, list) else None


def loading(source: Source, inputs: str) -> list[str]:
    """Lines of Python that load the student and use it."""
    example = {"image": '"picture.png"', "text": '"a sentence"', "row": "[...]"}.get(inputs, "inputs")
    lines = [
        "import limbeck",
        'student = limbeck.load("FOLDER")  # this folder',
        f"student.predict({example})",
    ]
    if source == "timm":
        lines += ["", "import timm  # the plain network, without preprocessing"]
        lines += ['network = timm.create_model("local-dir:FOLDER", pretrained=True)']
    if source == "hf":
        auto = (
            "AutoModelForImageClassification" if inputs == "image" else "AutoModelForSequenceClassification"
        )
        lines += ["", f"from transformers import {auto}  # the plain network"]
        lines += [f'network = {auto}.from_pretrained("FOLDER")']
    return lines
