"""D5, paimon#10096, tensorflow/datasets#590, vllm#44974: palettes, transparency, CMYK and turned pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from limbeck.data import load_source, read_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def drawn(mode: str) -> Image.Image:
    """16x8: the left half red, the right half fully transparent where the mode can say so."""
    image = Image.new("RGBA", (16, 8), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (8, 0, 16, 8))
    return image.convert(mode) if mode != "RGBA" else image


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def corners(raw: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The first and the last pixel."""
    pixels = read_image(raw)
    assert pixels.shape == (3, 8, 16)
    return tuple(pixels[:, 0, 0].tolist()), tuple(pixels[:, -1, -1].tolist())


def test_palette_gives_colours_not_indices() -> None:
    image = Image.new("P", (16, 8), 3)
    image.putpalette([0, 0, 0, 9, 9, 9, 7, 7, 7, *RED, 0, 0, 255])
    assert corners(encoded(image, "PNG")) == (RED, RED)
    assert corners(encoded(image, "GIF")) == (RED, RED)


def test_transparency_becomes_white() -> None:
    assert corners(encoded(drawn("RGBA"), "PNG")) == (RED, WHITE)
    assert corners(encoded(drawn("RGBA"), "WEBP", lossless=True)) == (RED, WHITE)
    palette = Image.new("P", (16, 8), 0)
    palette.putpalette([*RED, 0, 0, 255])
    palette.paste(1, (8, 0, 16, 8))
    for transparency in (1, b"\xff\x00"):
        assert corners(encoded(palette, "PNG", transparency=transparency)) == (RED, WHITE)
    keyed = drawn("RGBA").convert("RGB")
    assert corners(encoded(keyed, "PNG", transparency=(0, 0, 255))) == (RED, WHITE)


def test_grey_with_transparency_becomes_colour_on_white() -> None:
    first, last = corners(encoded(drawn("LA"), "PNG"))
    assert first == (76, 76, 76)
    assert last == WHITE


def test_half_transparent_is_mixed_with_white() -> None:
    image = Image.new("RGBA", (16, 8), (0, 0, 0, 128))
    assert corners(encoded(image, "PNG"))[0] == (127, 127, 127)


def test_cmyk_has_three_channels() -> None:
    first, _ = corners(encoded(Image.new("CMYK", (16, 8), (0, 255, 255, 0)), "TIFF"))
    assert first == RED
    first, _ = corners(encoded(Image.new("CMYK", (16, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert all(abs(got - wanted) <= 3 for got, wanted in zip(first, RED, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation: int) -> None:
    upright = Image.new("RGB", (16, 8), (0, 0, 0))
    upright.paste(RED, (0, 0, 8, 4))  # red at the top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    first, last = corners(encoded(stored, "PNG", exif=exif))
    assert (first, last) == (RED, (0, 0, 0))


def test_all_of_them_in_one_folder(tmp_path: Path) -> None:
    for label in ("one", "two"):
        (tmp_path / label).mkdir()
        for mode in ("RGBA", "LA", "L", "P", "RGB"):
            (tmp_path / label / f"{mode}.png").write_bytes(encoded(drawn(mode), "PNG"))
        (tmp_path / label / "cmyk.jpg").write_bytes(encoded(drawn("CMYK"), "JPEG"))
    splits = load_source(f"imagefolder:{tmp_path}", validation=0, test=0)
    inputs = splits.train.batch(range(12))["inputs"]
    assert inputs.shape == (12, 3, 8, 16)
    assert float(inputs.min()) >= 0
    assert float(inputs.max()) <= 1
    assert any("transparent parts of pictures are shown on white" in note for note in splits.notes)
    for position in range(12):  # a new picture is read by the same rule
        path = sorted(p for folder in ("one", "two") for p in (tmp_path / folder).iterdir())[position]
        pixels = read_image(path, channels=3, size=(8, 16))
        assert (inputs[position] * 255).round().long().tolist() == pixels.long().tolist()
