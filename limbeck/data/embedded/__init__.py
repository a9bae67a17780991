"""The pictures that come with the package: a class-balanced part of Fashion-MNIST (MIT, see LICENSE)."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limbeck.data.assembly import Options, assemble
from limbeck.data.dataset import ArrayDataset, Dataset, Splits
from limbeck.errors import RunError
from limbeck.task import Classification

#: A sheet is 40 rows of 25 pictures of 28x28; picture i of a part is of class i % 10.
ROWS, COLUMNS, SIDE = 40, 25, 28


def load(name: str, options: Options) -> Splits:
    """`fashion-small`: 10,000 training, 1,000 validation and 2,000 test pictures, class-balanced."""
    about = provenance()
    classes = about["classes"]
    parts: dict[str, Dataset] = {}
    for part, number in about["pictures"].items():
        pixels = _read(part, number, about["sha256"][part])
        parts[part] = ArrayDataset(pixels, torch.arange(number) % len(classes))
    reading = {"kind": "image", "channels": 1, "size": [SIDE, SIDE]}
    return assemble(name, parts, Classification(classes), options, reading=reading)


def provenance() -> dict[str, Any]:
    """Where the pictures come from, which they are, class names, and a checksum of each part's pixels."""
    text = (resources.files(__name__) / "provenance.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _read(part: str, number: int, checksum: str) -> Tensor:
    """The pictures of a part, uint8 [number, 1, 28, 28]."""
    sheets = [_sheet(f"{part}-{i:02d}.webp") for i in range(number // (ROWS * COLUMNS))]
    pixels = np.concatenate(sheets)
    if hashlib.sha256(pixels.tobytes()).hexdigest() != checksum:
        raise RunError(f"the embedded pictures of {part} are damaged", fix="install limbeck again")
    return torch.from_numpy(pixels)[:, None]


def _sheet(file: str) -> Any:
    with (resources.files(__name__) / file).open("rb") as opened, Image.open(opened) as image:
        return from_sheet(np.asarray(image.convert("L")))


def from_sheet(sheet: Any) -> Any:
    """A sheet of pixels cut into its pictures, uint8 [1000, 28, 28], row by row."""
    cut = sheet.reshape(ROWS, SIDE, COLUMNS, SIDE).swapaxes(1, 2)
    return np.ascontiguousarray(cut.reshape(-1, SIDE, SIDE))
