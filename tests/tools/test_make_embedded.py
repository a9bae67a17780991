from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.data.embedded import from_sheet
from tools import make_embedded as tool


def test_takes_the_first_of_each_class_and_rounds(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), 3)
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
        (tmp_path / f"train-{kind}-ubyte").write_bytes(header + values.tobytes())
    pixels = tool.chosen(tmp_path, "train", 1, 3)
    assert pixels.shape == (20, 28, 28)
    original = images[[3 * (i % 10) + 1 + i // 10 for i in range(20)]]
    assert np.abs(pixels.astype(int) - original.astype(int)).max() <= 1
    assert set(np.unique(pixels % 3)) == {0}


def test_sheets_are_lossless() -> None:
    pixels = np.zeros((1000, 28, 28), np.uint8)
    pixels[np.arange(1000), :, np.arange(1000) % 28] = np.arange(1000)[:, None] % 255
    (sheet,) = tool.sheets(pixels)
    with Image.open(io.BytesIO(sheet)) as image:
        assert np.array_equal(from_sheet(np.asarray(image.convert("L"))), pixels)


def test_what_is_shipped_is_what_it_makes() -> None:
    if not tool.DEBIAN.is_dir():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    parts = {part: tool.chosen(tool.DEBIAN, *rule) for part, rule in tool.PARTS.items()}
    assert tool.check(parts) == []
    parts["test"][0, 0, 0] ^= 3
    assert tool.check(parts) == ["sha256", "test-00.webp"]
