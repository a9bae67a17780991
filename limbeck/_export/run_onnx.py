"""Runs model.onnx or model_int8.onnx by ONNX Runtime alone: needs numpy, pillow and onnxruntime.

    python run_onnx.py picture.png [model.onnx]
    python run_onnx.py "width=3.5" "colour=red" [model.onnx]     a row of a table, by column
    python run_onnx.py inputs.npz [model.onnx]                   arrays by the names of the file's inputs

Prints the likeliest classes with their probabilities. How an input is made stands in the file itself.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MOST = 5
GREY = (0.299, 0.587, 0.114)
MISSING = ("", "?", "NA", "N/A", "na", "NaN", "nan", "NULL", "null", "None")


def open_model(file: str | Path) -> tuple[Any, dict[str, Any]]:
    """The session of a file, and how its inputs are made and its outputs are named."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["limbeck"])


# -- pictures ----------------------------------------------------------------------------------------------


def read_picture(file: str | Path, channels: int, size: tuple[int, int]) -> Any:
    """A picture as in training: pixels 0 to 1, float32 [1, C, H, W]."""
    with Image.open(file) as opened:
        image = in_colour(ImageOps.exif_transpose(opened), channels)
    height, width = size
    if (image.height, image.width) != (height, width):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    pixels = np.array(image)
    pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return pixels[None].astype(np.float32) / np.float32(255)


def in_colour(image: Image.Image, channels: int) -> Image.Image:
    """RGB or grey, whatever the mode; transparent parts on white."""
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def prepared(pixels: Any, wanted: dict[str, Any]) -> Any:
    """What is left to do before the file: channels, size, statistics; nothing where the graph does it."""
    if wanted["kind"] != "image":
        return pixels
    if pixels.shape[1] == 1 and wanted["channels"] == 3:
        pixels = pixels.repeat(3, axis=1)
    elif pixels.shape[1] == 3 and wanted["channels"] == 1:
        grey = np.array(GREY, np.float32)
        pixels = (pixels * grey[:, None, None]).sum(1, keepdims=True)
    if wanted["size"] and list(pixels.shape[2:]) != list(wanted["size"]):
        height, width = wanted["size"]
        planes = [
            Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in pixels[0]
        ]
        pixels = np.stack([np.asarray(plane) for plane in planes])[None]
    if wanted["mean"]:
        mean, std = (np.array(wanted[key], np.float32)[:, None, None] for key in ("mean", "std"))
        pixels = (pixels - mean) / std
    return pixels


# -- rows --------------------------------------------------------------------------------------------------


def read_row(words: list[str], columns: list[dict[str, Any]]) -> Any:
    """A row as in training: numbers centred and scaled, categories as one place each, float32 [1, F]."""
    given = dict(word.split("=", 1) for word in words)
    unknown = [column["name"] for column in columns if column["name"] not in given]
    if unknown:
        sys.exit(f"the row lacks {', '.join(unknown)}")
    values: list[float] = []
    for column in columns:
        text = given[column["name"]]
        if column["categories"]:
            values += [float(text == category) for category in column["categories"]]
        else:
            number = column["mean"] if text.strip() in MISSING else float(text)
            values.append((number - column["mean"]) / column["std"])
    return np.array([values], np.float32)


# -- answers -----------------------------------------------------------------------------------------------


def inputs_of(words: list[str], facts: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What the command names as inputs of the file."""
    reading = facts["reading"]
    if words[0].endswith(".npz"):
        with np.load(words[0], allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    if reading["kind"] == "image":
        pixels = read_picture(words[0], reading["channels"], (reading["size"][0], reading["size"][1]))
        return {names[0]: prepared(pixels, facts["preprocessing"]).astype(np.float32)}
    if reading["kind"] == "row":
        return {names[0]: read_row(words, reading["columns"])}
    sys.exit("this file takes ready inputs: an .npz with the arrays " + ", ".join(names))


def answers(logits: Any, facts: dict[str, Any]) -> list[tuple[str, float]]:
    """Names with probabilities (or values), likeliest first."""
    if facts["kind"] == "values":
        target = facts["reading"].get("target", {})
        values = [float(value) * target.get("std", 1.0) + target.get("mean", 0.0) for value in logits]
        return list(zip([target["name"]] if "name" in target else facts["classes"], values, strict=False))
    if facts["kind"] == "labels":
        shares = [1 / (1 + math.exp(-float(value))) for value in logits]
    else:
        weights = [math.exp(float(value) - float(max(logits))) for value in logits]
        shares = [weight / sum(weights) for weight in weights]
    names = facts["classes"] or [str(number) for number in range(len(shares))]
    return sorted(zip(names, shares, strict=True), key=lambda pair: -pair[1])


def main(words: list[str]) -> None:
    """The command line."""
    model = Path(__file__).parent / "onnx" / "model.onnx"
    if words and words[-1].endswith(".onnx"):
        model, words = Path(words[-1]), words[:-1]
    if not words:
        sys.exit(__doc__)
    session, facts = open_model(model)
    names = [given.name for given in session.get_inputs()]
    logits = session.run(None, inputs_of(words, facts, names))[0][0]
    for name, share in answers(logits, facts)[:MOST]:
        print(f"{share:.4f}  {name}" if facts["kind"] == "values" else f"{share:7.2%}  {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
