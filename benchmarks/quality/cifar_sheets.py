"""CIFAR-100 (or CIFAR-10) from sheets of pictures: a data source for recipes and for this benchmark.

A folder holds `labels.npz` (arrays `train`, `test`, `names`) and the pictures of both parts in the order of
the labels, as lossless WebP sheets `train-00.webp`, `test-00.webp`, ..., 100 rows of 50 pictures of 32x32
each. Every prefix of a part is class-balanced. In a recipe:

    [data]
    source = "benchmarks.quality.cifar_sheets:load"
    root = "data"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from limbeck.data import places
from limbeck.errors import RequestError

#: Training pictures at the end that no teacher of this benchmark has seen.
_HELD_OUT = 5_000
_ROWS, _COLUMNS, _SIDE = 100, 50, 32


def load(root: Path | None = None) -> dict[str, Any]:
    """Training and test part with the class names.

    Args:
        root: the folder with the sheets, or the one that holds it as `cifar100`; else LIMBECK_DATA.

    Returns:
        `train` and `test`: pixels uint8 [N, 3, 32, 32] and labels int64 [N] each; `classes`: names.

    Raises:
        RequestError: the folder is not there, or sheets and labels do not belong together.
    """
    folders = [place / below for place in places.roots(root) for below in ("", "cifar100")]
    folder = places.first_with(folders, ["labels.npz", "train-00.webp", "test-00.webp"])
    if folder is None:
        looked = [str(path) for path in folders] or [places.ENVIRONMENT]
        raise places.not_found("cifar100-sheets", looked, "--data-root FOLDER, which holds cifar100/")
    with np.load(folder / "labels.npz") as stored:
        labels = {part: torch.from_numpy(stored[part].astype(np.int64)) for part in ("train", "test")}
        names = [str(name) for name in stored["names"]]
    parts = {part: (_pictures(folder, part, len(targets)), targets) for part, targets in labels.items()}
    return {**parts, "classes": names}


def with_validation(root: Path | None = None) -> dict[str, Any]:
    """As `load`, with the last 5,000 training pictures as `validation`; both parts are class-balanced."""
    read = load(root)
    pixels, labels = read["train"]
    cut = len(labels) - _HELD_OUT
    parts = {"train": (pixels[:cut], labels[:cut]), "validation": (pixels[cut:], labels[cut:])}
    return {**read, **parts}


def _pictures(folder: Path, part: str, number: int) -> Tensor:
    """The pictures of all sheets of a part, in order; uint8 [number, 3, 32, 32]."""
    sheets = [_read(path) for path in sorted(folder.glob(f"{part}-*.webp"))]
    pixels = torch.from_numpy(np.concatenate(sheets))
    if len(pixels) != number:
        raise RequestError(f"{folder}: {len(pixels)} pictures and {number} labels of {part}")
    return pixels.permute(0, 3, 1, 2).contiguous()


def _read(path: Path) -> Any:
    """One sheet as pictures, uint8 [5000, 32, 32, 3], row by row."""
    try:
        with Image.open(path) as opened:
            sheet = np.asarray(opened.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise RequestError(
            f"{path} cannot be read: {error}", fix="a Pillow with WebP, or the file again"
        ) from error
    if sheet.shape != (_ROWS * _SIDE, _COLUMNS * _SIDE, 3):
        raise RequestError(f"{path} has the shape {sheet.shape}; needed {_ROWS} rows of {_COLUMNS} pictures")
    grid = sheet.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE, 3)
    return grid.swapaxes(1, 2).reshape(-1, _SIDE, _SIDE, 3)
