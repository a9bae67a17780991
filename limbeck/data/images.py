"""Pictures from files or bytes: upright, in true colours, of one size; decoded when they are read."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from limbeck.data.dataset import ArrayDataset, Dataset, Indices, digest, positions
from limbeck.errors import RequestError, RunError

#: A file, or the bytes of one.
Encoded = str | Path | bytes
#: Height and width in pixels.
Size = tuple[int, int]
Channels = Literal[1, 3]

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".ico"),
)

#: What Pillow raises for damaged files, by format.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height are swapped
_SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", *_SIXTEEN_BITS)

#: Pictures that are looked at to choose a common size.
_SAMPLE = 2000
#: Largest common side that is chosen for pictures of several sizes: what most vision models take.
_LARGEST_SIDE = 224
#: Bytes at both ends of a file that enter the fingerprint.
_ENDS = 4096


def read_image(
    source: Encoded, *, channels: Channels = 3, size: Size | None = None, name: str | None = None
) -> Tensor:
    """Decodes one picture; see `pixels_of`.

    Args:
        source: a file, or the bytes of one.
        channels: 3 (RGB) or 1 (grey).
        size: (height, width) to bring it to; None keeps the picture's own.
        name: what messages call it; by default the path.

    Returns:
        uint8 pixels [C, H, W].

    Raises:
        RunError: it cannot be decoded; `where` names it.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return pixels_of(opened, channels=channels, size=size)
    except _DAMAGED as error:
        reason = "it is not a picture" if isinstance(error, UnidentifiedImageError) else _reason(error)
        raise RunError(
            f"a picture cannot be read: {reason}",
            where=name or (f"{len(source)} bytes" if isinstance(source, bytes) else str(source)),
            fix="replace the file, or leave such files out by data.skip_unreadable = true",
        ) from error


def pixels_of(image: Image.Image, *, channels: Channels = 3, size: Size | None = None) -> Tensor:
    """The pixels of a Pillow picture, uint8 [C, H, W].

    It is turned upright by its EXIF tag; palettes, CMYK and 16 bits become 8 bits of colour or grey;
    transparent parts become white; of several frames the first is taken.

    Args:
        image: decoded here at the latest.
        channels: 3 (RGB) or 1 (grey).
        size: (height, width): scaled to cover it, then cut at the centre; None keeps the picture's own.
    """
    image = _in_colour(ImageOps.exif_transpose(image), channels)
    if size is not None and (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _reason(error: BaseException) -> str:
    return (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else str(error) or type(error).__name__
    )


def _in_colour(image: Image.Image, channels: Channels) -> Image.Image:
    """RGB or grey, whatever the mode; transparent parts on white."""
    if image.mode in _SIXTEEN_BITS:
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8))
    if _transparent(image):
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("L" if channels == 1 else "RGB")


def _transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


class LazyImageDataset(Dataset):
    """Pictures that are decoded each time they are read.

    Args:
        items: files, or the bytes of files.
        targets: [N] or [N, ...]; -1 or None where there is none.
        channels: 3 (RGB) or 1 (grey).
        size: (height, width) of every picture in a batch; None: they all have one size already.
        root: folder that names in the fingerprint are relative to.
        label: what messages call items given as bytes: "LABEL, row 17".
        index: identity of each sample, int64 [N]; by default its position.
    """

    def __init__(
        self,
        items: Sequence[Encoded],
        targets: Tensor | None = None,
        *,
        channels: Channels = 3,
        size: Size | None = None,
        root: Path | None = None,
        label: str = "pictures",
        index: Tensor | None = None,
    ) -> None:
        self.items = items
        self.channels: Channels = channels
        self.size = size
        self._targets = torch.full((len(items),), -1) if targets is None else targets
        self._index = torch.arange(len(items)) if index is None else index.long()
        self._root = root
        self._label = label
        self._fingerprint: str | None = None
        if len(self._targets) != len(items) or len(self._index) != len(items):
            raise RequestError(
                f"{len(items)} pictures, {len(self._targets)} targets, {len(self._index)} index values"
            )

    def __len__(self) -> int:
        return len(self.items)

    def name(self, position: int) -> str:
        """What messages call a sample: its path, or its row."""
        return _name(self.items[position], position, self._label)

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """The pictures at these positions, decoded; views do not differ."""
        chosen = positions(indices, len(self))
        pixels = [self._decode(i) for i in chosen.tolist()]
        sizes = {tuple(picture.shape[1:]): i for picture, i in zip(pixels, chosen.tolist(), strict=True)}
        if len(sizes) > 1:
            shown = ", ".join(f"{width}x{height} ({self.name(i)})" for (height, width), i in sizes.items())
            raise RequestError(f"pictures of several sizes in one batch: {shown}", fix="data.size = 224")
        inputs = torch.stack(pixels) if pixels else torch.empty(0, self.channels, *(self.size or (0, 0)))
        return {
            "inputs": inputs.float() / 255,
            "targets": self._targets[chosen],
            "index": self._index[chosen],
            "view": torch.as_tensor(view).expand(len(chosen)),
        }

    def _decode(self, position: int) -> Tensor:
        item = self.items[position]
        return read_image(
            item, channels=self.channels, size=self.size, name=_name(item, position, self._label)
        )

    def targets(self) -> Tensor:
        """All targets."""
        return self._targets

    def index(self) -> Tensor:
        """Identity of every sample."""
        return self._index

    def fingerprint(self) -> str:
        """Over names, lengths, the first and last 4 KiB of every file, targets and how they are decoded.

        Whole files would take hours for large sets; dates are left out, for copying changes them. Computed
        once.
        """
        if self._fingerprint is None:
            content = [self._identity(i) for i in range(len(self))]
            reading = [self.channels, *(self.size or ())]
            self._fingerprint = digest("pictures", reading, content, self._targets, self._index)
        return self._fingerprint

    def _identity(self, position: int) -> list[Any]:
        item = self.items[position]
        if isinstance(item, bytes):
            return [len(item), item[:_ENDS], item[-_ENDS:]]
        path = Path(item)
        name = path.relative_to(self._root) if self._root and path.is_relative_to(self._root) else path
        length = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(_ENDS)
            file.seek(max(length - _ENDS, 0))
            return [name.as_posix(), length, first, file.read()]


class Unreadable(NamedTuple):
    """A sample that cannot be read: its position, its name (path or row) and the reason."""

    position: int
    name: str
    reason: str


def find_unreadable(dataset: Dataset) -> list[Unreadable]:
    """All samples that cannot be read, by reading each once; at once for sets in memory."""
    innermost = dataset
    while innermost.base is not None:
        innermost = innermost.base
    if isinstance(innermost, ArrayDataset):
        return []
    return list(_unreadable(dataset))


def _unreadable(dataset: Dataset) -> Iterator[Unreadable]:
    for position in range(len(dataset)):
        try:
            dataset.batch([position])
        except RunError as error:
            yield Unreadable(position, error.where or f"sample {position}", error.message)


@dataclass(frozen=True)
class Survey:
    """What a look at pictures' headers says: common size, channels, and notes for the plan."""

    size: Size
    channels: Channels
    notes: tuple[str, ...]


def survey(groups: Sequence[Sequence[Encoded]], side: int | None = None) -> Survey:
    """Chooses size and channels for pictures, from their headers alone.

    Up to 2,000 evenly spaced pictures are looked at. One size: it is kept. Several: the median of the shorter
    sides, at most 224, as a square. Grey is kept as one channel where every single picture is grey.

    Args:
        groups: files, or the bytes of files, of each part; those that cannot be opened are passed over.
        side: of the square to use in place of a chosen one.
    """
    step = max(sum(map(len, groups)) // _SAMPLE, 1)
    looked = [_header(group[i]) for group in groups for i in range(0, len(group), step)]
    headers = [header for header in looked if header is not None]
    sizes = Counter(header.size for header in headers)
    notes = []
    size = next(iter(sizes), (_LARGEST_SIDE,) * 2) if side is None else (side, side)
    if len(sizes) > 1:
        if side is None:
            size = (min(int(median(min(found) for found in sizes.elements())), _LARGEST_SIDE),) * 2
        notes.append(
            f"pictures of {len(sizes)} sizes: each is scaled to cover {size[1]}x{size[0]}, cut at its centre"
        )
    grey = bool(headers) and all(header.grey for header in headers)
    if grey and step > 1:
        each = (_header(item) for group in groups for item in group)
        grey = all(header is None or header.grey for header in each)
    if grey:
        notes.append("all pictures are grey: one channel")
    if any(header.transparent for header in headers):
        notes.append("transparent parts of pictures are shown on white")
    return Survey(size, 1 if grey else 3, tuple(notes))


class _Header(NamedTuple):
    size: Size
    grey: bool
    transparent: bool


def _header(item: Encoded) -> _Header | None:
    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            size = (image.width, image.height) if turned else (image.height, image.width)
            return _Header(size, image.mode in _GREY, _transparent(image))
    except _DAMAGED:
        return None


def _name(item: Encoded, position: int, label: str) -> str:
    return f"{label}, row {position}" if isinstance(item, bytes) else str(item)
