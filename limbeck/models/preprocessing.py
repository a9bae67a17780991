"""What a network wants of its inputs: size, channels and statistics. It belongs to the network.

Batches hold pixels from 0 to 1 (or ids, or rows); each network turns them into what it was made for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError, nearest

#: Mean and standard deviation by channel, of pixels from 0 to 1.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

#: Sets of statistics by name. ImageNet's are those of torchvision's weights, CIFAR's those of the training
#: pictures, as the published weights of the distillation papers use them.
NAMED: dict[str, Statistics] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "none": ((0.0,), (1.0,)),
}

#: Weights of red, green and blue in grey (ITU-R BT.601), as in most picture libraries.
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocessing:
    """How pixels of the data become the input of one network.

    Args:
        kind: "image", or "identity" for ids and rows, which enter as they are.
        channels: of the network's input: 1 grey, 3 colour.
        size: (height, width) of the network's input; None: as the pictures come.
        mean: by channel, of pixels from 0 to 1; empty: no normalisation.
        std: by channel, above 0.
    """

    kind: Literal["image", "identity"] = "identity"
    channels: int = 0
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("image", "identity"):
            raise RequestError(f'preprocessing of kind {self.kind!r}; needed "image" or "identity"')
        if self.kind == "identity":
            return
        if self.channels < 1:
            raise RequestError(f"channels = {self.channels}; needed at least 1", fix="1 grey, 3 colour")
        if self.size is not None and min(self.size) < 1:
            raise RequestError(f"size = {self.size}; needed at least one pixel", fix="size = 32")
        for name, values in {"mean": self.mean, "std": self.std}.items():
            if len(values) not in (0, self.channels):
                raise RequestError(
                    f"{name} has {len(values)} values, the network {self.channels} channels",
                    fix=f"one value for each channel, or channels = {len(values)}",
                )
        if len(self.mean) != len(self.std) or any(not value > 0 for value in self.std):
            raise RequestError(
                f"std = {list(self.std)}; needed one value above 0 for each mean",
                fix="normalize = { mean = [0.5], std = [0.5] }",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a `config.json`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Preprocessing:
        """From what `to_dict` returned."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)

    def __str__(self) -> str:
        if self.kind == "identity":
            return "inputs as they are"
        size = f"{self.size[1]}x{self.size[0]} " if self.size else ""
        if not self.mean:
            return f"{size}{_colour(self.channels)}, pixels 0 to 1"
        mean, std = (" ".join(f"{v:.4g}" for v in values) for values in (self.mean, self.std))
        return f"{size}{_colour(self.channels)}, mean {mean}, std {std}"


class Preprocessed(nn.Module):
    """A network that takes the pixels of the data: its own preprocessing, then its body.

    Its statistics are no part of its state: the state is that of `body`, under the prefix `body.`.

    Args:
        body: the plain network.
        preprocessing: what the body wants.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, body: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.body = body
        self.preprocessing = preprocessing
        for name, values in {"_mean": preprocessing.mean, "_std": preprocessing.std}.items():
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        plain = (not any(preprocessing.mean), all(value == 1 for value in preprocessing.std))
        self._normalises = plain != (True, True)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Inputs as the data give them -> what the body returns.

        Floating tensors of four dimensions [B, C, H, W] are pixels; everything else is passed on as it is.
        """
        return self.body(
            *[self.if_pixels(value) for value in inputs],
            **{name: self.if_pixels(value) for name, value in named.items()},
        )

    def if_pixels(self, value: Any) -> Any:
        """One input prepared if it is pixels and the network wants pictures; anything else as it is."""
        pixels = isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()
        return self.prepare(value) if pixels and self.preprocessing.kind == "image" else value

    def prepare(self, pixels: Tensor) -> Tensor:
        """Pixels of the data, 0 to 1 [B, C, H, W] -> input of the body, in its size, channels, statistics.

        Channels first, then size (bilinear, antialiased where it shrinks), then statistics.
        """
        wanted = self.preprocessing
        pixels = _in_channels(pixels, wanted.channels)
        if wanted.size is not None and tuple(pixels.shape[2:]) != wanted.size:
            pixels = F.interpolate(pixels, wanted.size, mode="bilinear", antialias=True)
        return (pixels - self._mean) / self._std if self._normalises else pixels


def _in_channels(pixels: Tensor, channels: int) -> Tensor:
    given = pixels.shape[1]
    if given == channels:
        return pixels
    if given == 1 and channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    if given == 3 and channels == 1:
        red, green, blue = pixels.unbind(1)
        return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue)[:, None]
    raise RequestError(f"pictures of {given} channels for a network that takes {channels}")


def _colour(channels: int) -> str:
    return {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")


def statistics(
    normalize: str | Mapping[str, Any], channels: int, data: Statistics | None = None
) -> Statistics:
    """Mean and standard deviation by channel, by name or as given.

    Args:
        normalize: "imagenet", "cifar10", "cifar100", "none", "data", or a table with `mean` and `std`.
        channels: of the network; one value stands for all channels, three are averaged for a grey network.
        data: those of the training pictures, for "data".

    Raises:
        RequestError: no such name, or numbers that do not fit.
    """
    if isinstance(normalize, Mapping):
        if set(normalize) != {"mean", "std"}:
            raise RequestError(f"statistics with the keys {sorted(normalize)}; needed mean and std")
        mean, std = (tuple(float(v) for v in normalize[key]) for key in ("mean", "std"))
        return _spread(mean, channels), _spread(std, channels)
    if normalize == "data":
        if data is None:
            raise RequestError(
                'normalize = "data" needs pictures', fix="leave normalize out, or give mean and std"
            )
        return tuple(_fit_channels(values, channels) for values in data)  # type: ignore[return-value]
    if normalize not in NAMED:
        known = [*NAMED, "data"]
        raise RequestError(
            f"there are no statistics named {normalize!r}",
            near=nearest(normalize, known) or known,
            fix="a name, or a table: normalize = { mean = [0.5], std = [0.5] }",
        )
    mean, std = NAMED[normalize]
    return _fit_channels(mean, channels), _fit_channels(std, channels)


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values * channels if len(values) == 1 else values


def _fit_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Statistics of other pictures for a network of `channels`: repeated, or averaged."""
    if len(values) == channels:
        return values
    return (sum(values) / len(values),) * channels


def pixel_statistics(batches: Iterable[Tensor]) -> Statistics:
    """Mean and standard deviation by channel over pictures [B, C, H, W]; a deviation of 0 becomes 1."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for pixels in batches:
        values = pixels.double()
        count += values.numel() // max(values.shape[1], 1)
        total = total + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
    if count == 0:
        raise RequestError("no picture to compute statistics of")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 0, std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())
