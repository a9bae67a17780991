"""Makes the pictures of `limbeck/data/embedded` from Fashion-MNIST, or checks what is there.

    python tools/make_embedded.py            writes them
    python tools/make_embedded.py --check    compares pixels and provenance, writes nothing

Needs the four files of Fashion-MNIST: `apt install dataset-fashion-mnist`, or `--source FOLDER`. Of each
class the first 1,000 training pictures become training data, the next 100 validation data, the first 200
test pictures test data; they are interleaved, so picture i is of class i % 10. Grey values are rounded to
multiples of 3 (at most 1 of 255 away), which makes lossless WebP a fifth smaller: 13,000 pictures stay
below 4 MB. The pixels are the same with any version of Pillow; the bytes of the sheets with the same
libwebp, whose version is written down.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from limbeck.data.embedded import COLUMNS, ROWS, SIDE, from_sheet
from limbeck.data.named import FASHION_CLASSES, read_idx_pair

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FOLDER = Path(__file__).resolve().parent.parent / "limbeck" / "data" / "embedded"
PER_SHEET = ROWS * COLUMNS
STEP = 3  # of grey values
#: Part -> file, and which pictures of each class, in the order of the file.
PARTS = {"train": ("train", 0, 1000), "validation": ("train", 1000, 1100), "test": ("t10k", 0, 200)}
MOST_BYTES = 4_000_000


def chosen(source: Path, file: str, first: int, last: int) -> Any:
    """The pictures first..last-1 of each class, interleaved and rounded, uint8 [N, 28, 28]."""
    ending = ".gz" if (source / f"{file}-images-idx3-ubyte.gz").exists() else ""
    pixels, labels = (value.numpy() for value in read_idx_pair(source, file, ending))
    places = np.stack(
        [np.flatnonzero(labels == label)[first:last] for label in range(len(FASHION_CLASSES))], 1
    )
    grey = pixels[places.ravel(), 0].astype(np.int64)
    return ((grey + STEP // 2) // STEP * STEP).astype(np.uint8)


def sheets(pixels: Any) -> list[bytes]:
    """Lossless WebP sheets of 1,000 pictures each."""
    encoded = []
    for first in range(0, len(pixels), PER_SHEET):
        block = pixels[first : first + PER_SHEET].reshape(ROWS, COLUMNS, SIDE, SIDE).swapaxes(1, 2)
        buffer = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(block.reshape(ROWS * SIDE, COLUMNS * SIDE)))
        image.save(buffer, "WEBP", lossless=True, quality=100, method=6)
        encoded.append(buffer.getvalue())
    return encoded


def provenance(parts: dict[str, Any]) -> dict[str, Any]:
    """What is said about the pictures, beside them."""
    return {
        "name": "fashion-small",
        "from": "Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist",
        "licence": "MIT, see LICENSE; Copyright 2017 Zalando SE",
        "changes": f"a part; grey values rounded to multiples of {STEP}; packed into WebP sheets",
        "chosen": {
            part: f"pictures {first}..{last - 1} of each class in {file}-images-idx3-ubyte"
            for part, (file, first, last) in PARTS.items()
        },
        "order": f"picture i is of class i % {len(FASHION_CLASSES)}",
        "classes": list(FASHION_CLASSES),
        "pictures": {part: len(pixels) for part, pixels in parts.items()},
        "sha256": {part: hashlib.sha256(pixels.tobytes()).hexdigest() for part, pixels in parts.items()},
        "encoder": f"libwebp {features.version('webp')}",
    }


def check(parts: dict[str, Any]) -> list[str]:
    """What differs between the files and what would be written, the encoder's version apart."""
    there = json.loads((FOLDER / "provenance.json").read_text(encoding="utf-8"))
    differing = [
        key for key, value in provenance(parts).items() if key != "encoder" and there.get(key) != value
    ]
    for part, pixels in parts.items():
        for number, first in enumerate(range(0, len(pixels), PER_SHEET)):
            file = f"{part}-{number:02d}.webp"
            with Image.open(FOLDER / file) as image:
                same = np.array_equal(
                    from_sheet(np.asarray(image.convert("L"))), pixels[first : first + PER_SHEET]
                )
            differing += [] if same else [file]
    return differing


def write(parts: dict[str, Any]) -> int:
    """Writes sheets and provenance; returns the bytes of the sheets."""
    total = 0
    for part, pixels in parts.items():
        for number, content in enumerate(sheets(pixels)):
            (FOLDER / f"{part}-{number:02d}.webp").write_bytes(content)
            total += len(content)
    text = json.dumps(provenance(parts), indent=2) + "\n"
    (FOLDER / "provenance.json").write_text(text, encoding="utf-8")
    return total


def main() -> int:
    """Exit code 0 if the files are written, or are what would be written."""
    parser = argparse.ArgumentParser(description="Makes or checks the embedded pictures.")
    parser.add_argument("--source", type=Path, default=DEBIAN, help="folder of the four Fashion-MNIST files")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    parts = {part: chosen(arguments.source, *rule) for part, rule in PARTS.items()}
    if arguments.check:
        differing = check(parts)
        print(f"differs: {', '.join(differing)}" if differing else "as expected")
        return 1 if differing else 0
    total = write(parts)
    print(f"{total:,} bytes")
    return 0 if total <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
