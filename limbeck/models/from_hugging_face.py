"""Classification networks of Hugging Face transformers: a folder, or a name on the Hub."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from limbeck.errors import RequestError, require
from limbeck.models.building import PRETRAINED, Architecture, Plan, Raw, Wanted, check_options, flag, without
from limbeck.models.preprocessing import Preprocessing, statistics

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_GIVEN = ("num_labels", "id2label", "label2id", "architectures", "limbeck", "transformers_version")


def plan(spec: str, name: str, wanted: Wanted) -> Plan:
    """Channels, size and statistics that the model's own files name; those of the data where they do not."""
    config = _config(spec, name, flag(wanted.options, "download", spec))
    if not _is_image(config):
        return Plan(Architecture(spec, wanted.num_classes, options=wanted.options), Preprocessing())
    processor = _processor(name)
    channels = wanted.channels or int(getattr(config, "num_channels", 3))
    own = _size(getattr(config, "image_size", None)) or _size(
        processor.get("crop_size", processor.get("size"))
    )
    size = wanted.size or own or wanted.sample.size
    given = {"mean": processor.get("image_mean", [0.5]), "std": processor.get("image_std", [0.5])}
    if not processor.get("do_normalize", True):
        given = {"mean": [0.0], "std": [1.0]}
    mean, std = statistics(given, channels)
    resized = None if size == wanted.sample.size else (size[0], size[1])
    wants = Preprocessing("image", channels, resized, mean, std)
    return Plan(Architecture(spec, wanted.num_classes, channels, size, wanted.options), wants)


def build(name: str, architecture: Architecture) -> Raw:
    """The network with the weights of its folder or repository, where it has some.

    Options are attributes of its configuration; `pretrained = false` starts at random.
    """
    spec = architecture.spec
    transformers = require("transformers", "text", f"model {spec!r}")
    download = flag(architecture.options, "download", spec)
    config = _config(spec, name, download)
    options = without(architecture.options, PRETRAINED)
    known = [key for key in config.to_dict() if key not in _GIVEN]
    check_options(spec, options, known)
    classes = _classes(config)
    for key, value in options.items():
        setattr(config, key, value)
    own = _size(getattr(config, "image_size", None))
    if own is not None and len(architecture.size) == 2 and own != architecture.size:
        height, width = architecture.size
        config.image_size = height if height == width else [height, width]
    if config.num_labels != architecture.num_classes:
        config.num_labels, classes = architecture.num_classes, None
    auto = (
        transformers.AutoModelForImageClassification
        if _is_image(config)
        else transformers.AutoModelForSequenceClassification
    )
    with quiet():
        if not _wants_weights(name, architecture.options, spec):
            return Raw(
                auto.from_config(config, trust_remote_code=False), notes=[f"{spec}: weights start at random"]
            )
        return _pretrained(auto, name, config, spec, download, classes)


def is_hub_name(name: str) -> bool:
    """Whether a name can be one on the Hub: no folder of that name, and not written as a path."""
    return not Path(name).expanduser().is_dir() and name.count("/") <= 1 and name[:1] not in ("/", ".", "~")


def _config(spec: str, name: str, download: bool) -> Any:
    """The configuration of a folder or repository.

    Raises:
        RequestError: no such folder; or the repository is not on this machine and may not be fetched.
    """
    transformers = require("transformers", "text", f"model {spec!r}")
    folder = Path(name).expanduser()
    if not is_hub_name(name) and not folder.is_dir():
        raise RequestError(f"{spec}: there is no folder {name}", fix="a folder with config.json")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise RequestError(f"{spec}: the folder {name} has no config.json", fix="the folder of a saved model")
    source = str(folder) if folder.is_dir() else name
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                source, local_files_only=not download, trust_remote_code=False
            )
    except OSError as error:
        raise RequestError(
            f"{spec}: {name} is neither a folder nor a model on this machine",
            fix="options = { download = true } lets it be fetched from the Hub",
        ) from error
    except (ValueError, KeyError) as error:
        raise RequestError(f"{spec}: its config.json is of no model that transformers knows") from error
    if not _is_image(config) and not _is_text(config):
        raise RequestError(
            f"{spec}: {type(config).__name__} has no form for classification",
            fix="a model for image or sequence classification",
        )
    return config


def _is_image(config: Any) -> bool:
    auto = require("transformers.models.auto.modeling_auto", "text", "a model of Hugging Face")
    return type(config) in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING


def _is_text(config: Any) -> bool:
    auto = require("transformers.models.auto.modeling_auto", "text", "a model of Hugging Face")
    return type(config) in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


def _processor(name: str) -> dict[str, Any]:
    """The settings of the model's image processor, where its folder or the cache of the Hub has them."""
    folder = Path(name).expanduser()
    file: Any = folder / "preprocessor_config.json"
    if not folder.is_dir():
        hub = require("huggingface_hub", "text", "a model of Hugging Face")
        file = hub.try_to_load_from_cache(name, "preprocessor_config.json")
    if not isinstance(file, (str, Path)) or not Path(file).is_file():
        return {}
    return dict(json.loads(Path(file).read_text(encoding="utf-8")))


def _size(value: Any) -> tuple[int, int] | None:
    """A size as configurations write it: a number, two, or a mapping."""
    if isinstance(value, Mapping):
        if "height" in value:
            return int(value["height"]), int(value["width"])
        value = value.get("shortest_edge")
    if isinstance(value, int):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    return None


def _classes(config: Any) -> list[str] | None:
    """The names of a trained head's outputs; None where they were never named."""
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    return None if names == [f"LABEL_{i}" for i in range(len(names))] else names


def _wants_weights(name: str, options: Mapping[str, Any], spec: str) -> bool:
    folder = Path(name).expanduser()
    there = not folder.is_dir() or any((folder / file).is_file() for file in _WEIGHTS)
    return flag({"pretrained": there, **options}, "pretrained", spec)


def _pretrained(
    auto: Any, name: str, config: Any, spec: str, download: bool, classes: list[str] | None
) -> Raw:
    """A network with the weights that are stored for it; a head that they lack is new, and that is said.

    Raises:
        RequestError: the weights are missing, damaged, or lack more than a head.
    """
    folder = Path(name).expanduser()
    try:
        network, info = auto.from_pretrained(
            str(folder) if folder.is_dir() else name,
            config=config,
            local_files_only=not download,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # judged below
            output_loading_info=True,
        )
    except pickle.UnpicklingError:
        raise RequestError(
            f"{spec}: its file of weights holds more than weights; to read that would be to run code",
            fix="weights in safetensors: network.save_pretrained(FOLDER), where they were made",
        ) from None
    except SafetensorError as error:
        raise RequestError(f"{spec}: its file of weights is damaged: {error}", fix="copy it again") from error
    except OSError as error:
        raise RequestError(
            f"{spec}: its weights are not on this machine",
            fix="options = { download = true } lets them be fetched, { pretrained = false } starts at random",
        ) from error
    new = sorted({*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])})
    body = [k for k in new if k.startswith(f"{network.base_model_prefix}.") and ".pooler." not in k]
    if body:
        raise RequestError(
            f"{spec}: its weights do not fit: {len(body)} missing or of another shape: {body[0]}"
        )
    heads = sorted({key.rpartition(".")[0] for key in new})
    notes = [f"{spec}: not in its weights, so it starts at random: {', '.join(heads)}"] if heads else []
    return Raw(network.float(), None if heads else classes, notes)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's progress bars and reports; what matters of them is said in notes."""
    logging = require("transformers.utils.logging", "text", "a model of Hugging Face")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
