"""Networks by name: built-in, of timm, torchvision and Hugging Face, of the user's own, finished students."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.errors import RequestError, nearest
from limbeck.models.building import Architecture, Built, Plan, Raw, Sample, Source, Wanted

if TYPE_CHECKING:
    from torch import nn

    from limbeck.models.preprocessing import Preprocessing, Statistics


class Entry(NamedTuple):
    """A built-in network: `module:function` and the arguments that its name stands for."""

    home: str
    fixed: Mapping[str, Any] = {}
    about: str = ""


def _cifar(depth: int, widths: tuple[int, ...] | None = None) -> Entry:
    fixed: dict[str, Any] = {"depth": depth} if widths is None else {"depth": depth, "widths": widths}
    return Entry("limbeck.models.cifar:cifar_resnet", fixed, "ResNet for 32x32 pictures")


def _wide(depth: int, widen: int) -> Entry:
    about = f"wide ResNet for 32x32 pictures, {widen} x"
    return Entry("limbeck.models.wide:wide_resnet", {"depth": depth, "widen": widen}, about)


_FOUR_TIMES = (32, 64, 128, 256)

#: The built-in networks, in the order in which lists show them.
BUILT_IN: dict[str, Entry] = {
    "resnet-small": Entry("limbeck.models.small:resnet_small", {}, "1.2 million parameters, 28x28 and up"),
    "cnn-tiny": Entry("limbeck.models.small:cnn_tiny", {}, "54,000 parameters, 28x28 and up"),
    "mlp": Entry("limbeck.models.small:mlp", {}, "perceptron for rows of numbers"),
    **{f"resnet{depth}": _cifar(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": _cifar(depth, _FOUR_TIMES) for depth in (8, 32)},
    **{f"wrn{depth}-{widen}": _wide(depth, widen) for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2))},
    **{
        f"vgg{depth}": Entry("limbeck.models.vgg:vgg", {"depth": depth}, "VGG for 32x32 pictures")
        for depth in (8, 11, 13, 16, 19)
    },
    "mobilenetv2": Entry("limbeck.models.mobile:mobilenet_v2", {}, "half as wide, for 32x32 pictures"),
    "shufflenetv1": Entry("limbeck.models.shuffle:shufflenet_v1", {}, "for 32x32 pictures"),
    "shufflenetv2": Entry("limbeck.models.shuffle:shufflenet_v2", {}, "for 32x32 pictures"),
}

#: What a student's folder says of a network that is made of parts of two.
COMPOSED = "composed"

_LIBRARIES: dict[str, Source] = {"timm": "timm", "torchvision": "torchvision", "hf": "hf"}
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Spec(NamedTuple):
    """A model's name taken apart: where it comes from, and its name there."""

    source: Source
    name: str


def built_in_names() -> list[str]:
    """The names of the built-in networks."""
    return list(BUILT_IN)


def check_spec(text: str) -> Spec:
    """Takes a model's name apart, without importing or building anything.

    Args:
        text: a built-in name, "timm:NAME", "torchvision:NAME", "hf:NAME or folder", "module:function", or a
            student's folder.

    Raises:
        RequestError: no such name or folder.
    """
    library, colon, name = text.partition(":")
    if text in BUILT_IN:
        return Spec("built-in", text)
    if text == COMPOSED:
        return Spec("composed", text)
    if colon and library in _LIBRARIES:
        if not name:
            raise RequestError(f"model {text!r} lacks a name", fix=f'"{library}:NAME"')
        return Spec(_LIBRARIES[library], name)
    if Path(text).expanduser().is_dir():
        return Spec("folder", text)
    if _FUNCTION.fullmatch(text):
        return Spec("function", text)
    if _looks_like_path(text):
        raise RequestError(f"there is no folder {text!r} with a model", fix="the student/ folder of a run")
    near = nearest(text, BUILT_IN)
    raise RequestError(
        f"there is no built-in network {text!r}",
        near=near[1:] if near else built_in_names(),
        fix=f'{near[0]}, or "timm:..."' if near else f'one of them, or "timm:{name or text}"',
    )


def source_of(spec: str) -> Source:
    """Where a network came from that was built once: nothing has to be there any more."""
    library = spec.partition(":")[0]
    if spec in BUILT_IN:
        return "built-in"
    if spec == COMPOSED:
        return "composed"
    return _LIBRARIES.get(library, "function")


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.startswith((".", "~"))


def build(
    spec: str,
    *,
    num_classes: int,
    channels: int,
    size: int | tuple[int, ...],
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The plain network of a name, with random weights unless an option says otherwise.

    Args:
        spec: see `check_spec`.
        num_classes: length of the output.
        channels: of the input; for rows the number of their values.
        size: side of the input in pixels, or (height, width); () for what is no picture.
        options: arguments of the constructor beside these. Networks of libraries also take `pretrained`
            (their published weights, from this machine) and `download` (fetch them where they are not here).

    Raises:
        RequestError: no such model or option.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return make(Architecture(spec, num_classes, channels, sides, options or {})).network


def make(architecture: Architecture, *, run_code: bool = True) -> Raw:
    """Builds what an architecture describes, as its library gives it.

    Args:
        architecture: what to build.
        run_code: whether `module:function` may import a module from anywhere; else only from this folder.
    """
    source, name = check_spec(architecture.spec)
    if architecture.num_classes < 1:
        raise RequestError(f"{architecture.spec}: {architecture.num_classes} outputs; needed at least 1")
    if source == "built-in":
        from limbeck.models import from_built_in

        return from_built_in.build(BUILT_IN[name], architecture)
    if source == "function":
        from limbeck.models import from_function

        return from_function.build(architecture, run_code=run_code)
    if source == "folder":
        from limbeck.models import folder

        return folder.as_raw(Path(name).expanduser(), architecture.num_classes)
    if source == "composed":
        from limbeck.models import composed

        return composed.build(architecture, run_code=run_code)
    if source == "timm":
        from limbeck.models import from_timm

        return from_timm.build(name, architecture)
    if source == "torchvision":
        from limbeck.models import from_torchvision

        return from_torchvision.build(name, architecture)
    from limbeck.models import from_hugging_face

    return from_hugging_face.build(name, architecture)


def plan(spec: str, wanted: Wanted) -> Plan:
    """What a network of this name would be for this data: its channels, size and statistics by default."""
    source, name = check_spec(spec)
    if source == "folder":
        from limbeck.models import folder

        return folder.plan(Path(name).expanduser(), wanted)
    if source == "timm":
        from limbeck.models import from_timm

        return from_timm.plan(spec, name, wanted)
    if source == "torchvision":
        from limbeck.models import from_torchvision

        return from_torchvision.plan(spec, name, wanted)
    if source == "hf":
        from limbeck.models import from_hugging_face

        return from_hugging_face.plan(spec, name, wanted)
    return Plan(_like_data(spec, wanted))


def _like_data(spec: str, wanted: Wanted) -> Architecture:
    """An architecture for inputs in the channels and size of the data unless others are asked for."""
    sample = wanted.sample
    channels = wanted.channels or sample.channels
    size = wanted.size or sample.size
    return Architecture(spec, wanted.num_classes, channels, size, wanted.options)


def prepare(
    spec: str,
    *,
    num_classes: int,
    inputs: Any,
    options: Mapping[str, Any] | None = None,
    normalize: str | Mapping[str, Any] | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    weights: str | Path | None = None,
    statistics: Statistics | None = None,
) -> Built:
    """A network that takes the inputs of some data, with its own preprocessing and, where given, its weights.

    Channels and size are by default those of the data; a network from a library whose weights come from
    elsewhere keeps the input that they were made for. Statistics are by default the library's, else those of
    the training pictures, else none.

    Args:
        spec: see `check_spec`.
        num_classes: length of the output.
        inputs: of one batch of the data, as a model gets them.
        options: see `build`.
        normalize: statistics by name ("imagenet", "cifar10", "cifar100", "none", "data"), or a table of
            `mean` and `std`.
        size: side in pixels that the network shall take, or (height, width).
        channels: that the network shall take, 1 or 3.
        weights: see `load_weights`.
        statistics: mean and standard deviation of the training pictures by channel; see `pixel_statistics`.

    Raises:
        RequestError: no such model or option, statistics or weights that do not fit.
    """
    from limbeck.models.preprocessing import Preprocessed
    from limbeck.models.weights import load_weights

    sides = (size, size) if isinstance(size, int) else size
    options = dict(options or {})
    trained = weights is not None or options.get("pretrained") is True
    sample = Sample.of(inputs)
    planned = _plan(spec, Wanted(num_classes, sample, sides, channels, options, trained, statistics), weights)
    architecture = planned.architecture
    wants = planned.preprocessing or _default_preprocessing(sample, architecture, statistics)
    if (wants.kind == "image") != (sample.kind == "image"):
        takes = "pictures" if wants.kind == "image" else "tokens or rows"
        raise RequestError(f"{spec} takes {takes}; these inputs are of kind {sample.kind!r}")
    raw = make(replace(architecture, spec=spec))  # a student's folder was built from another name
    network = raw.network
    if isinstance(network, Preprocessed):  # the user's own function knows best
        wants, network = network.preprocessing, network.body
    if normalize is not None:
        wants = _normalized(wants, normalize, statistics)
    notes = list(raw.notes)
    if weights is not None:
        notes += load_weights(weights, network)
    return Built(Preprocessed(network, wants), architecture, raw.classes, notes)


def _plan(spec: str, wanted: Wanted, weights: str | Path | None) -> Plan:
    """As `plan`; a student's folder that gives the weights also says what they were trained on."""
    if weights is None or not Path(weights).expanduser().is_dir():
        return plan(spec, wanted)
    from limbeck.models import folder

    known = folder.plan_of_weights(Path(weights).expanduser(), wanted)
    if known is None:
        return plan(spec, wanted)
    own = replace(known.architecture, spec=spec, num_classes=wanted.num_classes, options=dict(wanted.options))
    return Plan(own, known.preprocessing)


def _normalized(
    wants: Preprocessing, normalize: str | Mapping[str, Any], data: Statistics | None
) -> Preprocessing:
    from limbeck.models.preprocessing import Preprocessing, statistics

    if wants.kind != "image":
        raise RequestError(f"normalize = {normalize!r} is for pictures", fix="leave normalize out")
    return Preprocessing("image", wants.channels, wants.size, *statistics(normalize, wants.channels, data))


def _default_preprocessing(
    sample: Sample, architecture: Architecture, data: Statistics | None
) -> Preprocessing:
    from limbeck.models.preprocessing import Preprocessing, statistics

    if sample.kind != "image":
        return Preprocessing()
    mean, std = statistics("none" if data is None else "data", architecture.channels, data)
    height, width = architecture.size
    size = None if architecture.size == sample.size else (height, width)
    return Preprocessing("image", architecture.channels, size, mean, std)
