"""What is asked of a builder of networks, and what it gives back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from limbeck.errors import RequestError, nearest

if TYPE_CHECKING:
    from torch import nn

    from limbeck.models.preprocessing import Preprocessed, Preprocessing, Statistics

Source = Literal["built-in", "timm", "torchvision", "hf", "function", "folder", "composed"]

#: Options of every network from a library: take its published weights, and whether they may be fetched.
PRETRAINED = ("pretrained", "download")


@dataclass(frozen=True)
class Sample:
    """One input as the data give it.

    Args:
        kind: "image" [C, H, W] of pixels from 0 to 1, "row" [F], "tokens" (ids, or keyword inputs).
        channels: C of a picture, F of a row; 0 otherwise.
        size: (H, W) of a picture; empty otherwise.
    """

    kind: Literal["image", "row", "tokens"]
    channels: int = 0
    size: tuple[int, ...] = ()

    @classmethod
    def of(cls, inputs: Any) -> Sample:
        """Of a batch of inputs: a tensor, or a mapping of keyword inputs."""
        if isinstance(inputs, Mapping):
            pictures = [v for v in inputs.values() if v.ndim == 4 and v.is_floating_point()]
            return cls.of(pictures[0]) if pictures else cls("tokens")
        if not inputs.is_floating_point():
            return cls("tokens")
        if inputs.ndim == 4:
            return cls("image", inputs.shape[1], tuple(inputs.shape[2:]))
        number = 1
        for length in inputs.shape[1:]:
            number *= length
        return cls("row", number)


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network anew, without its weights; plain values.

    Args:
        spec: as the recipe names the model.
        num_classes: length of the output.
        channels: of the input; of a row the number of its values.
        size: of the input in pixels, (height, width); empty for what is no picture.
        options: arguments of the constructor beside these.
    """

    spec: str
    num_classes: int
    channels: int = 0
    size: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a `config.json`."""
        return {
            "spec": self.spec,
            "num_classes": self.num_classes,
            "channels": self.channels,
            "size": list(self.size),
            "options": dict(self.options),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Architecture:
        """From what `to_dict` returned."""
        return cls(**{**plain, "size": tuple(plain["size"])})


@dataclass(frozen=True)
class Plan:
    """What a network would be, before it is built: its architecture and what it wants by default.

    Args:
        architecture: with the network's own channels and size.
        preprocessing: of the library or folder that it comes from; None where only the data can tell.
    """

    architecture: Architecture
    preprocessing: Preprocessing | None = None


@dataclass
class Built:
    """A network, ready to train or to predict.

    Attributes:
        network: takes the inputs of the data.
        architecture: builds it again.
        classes: names in the order of its outputs, where it brings them along.
        notes: what was decided or noticed, a sentence each, for the plan and the report.
    """

    network: Preprocessed
    architecture: Architecture
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Raw:
    """What a library's builder gives: the plain network and what it brings along."""

    network: nn.Module
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What a recipe says of a network beside its name.

    Args:
        num_classes: length of the output.
        sample: an input as the data give it.
        size: side in pixels, or (height, width), that the network shall take; None: decided by rule.
        channels: that it shall take; None: decided by rule.
        options: arguments of its constructor.
        trained: its weights come from elsewhere, so it keeps the input that they were made for.
        statistics: of the training pictures.
    """

    num_classes: int
    sample: Sample
    size: tuple[int, int] | None = None
    channels: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False
    statistics: Statistics | None = None


def without(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The options but those of these names."""
    left_out = set(names)
    return {name: value for name, value in options.items() if name not in left_out}


def flag(options: Mapping[str, Any], name: str, spec: str) -> bool:
    """A yes-or-no option, no by default."""
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"{spec}: option {name} = {value!r}; needed true or false")
    return value


def check_options(spec: str, options: Iterable[str], known: Sequence[str]) -> None:
    """Refuses options that a constructor does not take.

    Raises:
        RequestError: the first such option, with the nearest names.
    """
    for name in options:
        if name not in known:
            raise RequestError(
                f"{spec} has no option {name!r}",
                near=nearest(name, known) or sorted(known),
                fix="an option that it has, or leave it out",
            )


def arguments(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that a callable takes by keyword, by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters
    return {
        name: parameter for name, parameter in found.items() if parameter.kind in kinds and name != "self"
    }
