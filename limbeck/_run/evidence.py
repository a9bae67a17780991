"""What a report needs beside run.json: the answers to every sample, and the samples in dispute."""

from __future__ import annotations

import base64
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limbeck._report.answers import Answers, Whole, agreement, calibration_error, disputed, reliability
from limbeck._run.folder import RunFolder
from limbeck.data.dataset import Dataset, Splits
from limbeck.data.rows import Column, RowEncoder
from limbeck.data.text import load_tokenizer
from limbeck.errors import RequestError

if TYPE_CHECKING:
    from limbeck._run.finish import Final

_FOLDER = "evidence"
_MOST = 12  # samples in dispute
_SHARP = 64  # pixels of a side up to which a picture is kept as it is
_SIDE = 160  # pixels of a side to which larger ones are brought
_LETTERS = 400  # of a text
_COLUMNS = 12  # of a row


@dataclass(frozen=True)
class Evidence:
    """The answers of a run's networks to the labelled samples of the closing table.

    Attributes:
        positions: in the split, [N].
        target: the classes, [N].
        networks: by the key of run.json, in its order.
        disputed: samples on which teacher and student differ most, as `keep` wrote them.
    """

    positions: Whole
    target: Whole
    networks: Mapping[str, Answers]
    disputed: list[dict[str, Any]]

    @property
    def teacher(self) -> str | None:
        """The key of the first teacher."""
        return next((key for key in self.networks if key.startswith("teacher")), None)


def keep(folder: RunFolder, splits: Splits, data: Dataset, finals: Mapping[str, Final]) -> dict[str, Any]:
    """Writes the answers and the samples in dispute; says what they come to, for run.json.

    Args:
        folder: of the run.
        splits: how its samples are read.
        data: that the closing table is about.
        finals: the networks of the closing table, with what was measured of every sample.

    Returns:
        Counts of agreement, and the calibration error of each network; empty for other tasks than classes.
    """
    measured = {key: final.answers for key, final in finals.items() if "confidence" in final.answers}
    if not measured:
        return {}
    positions = (next(iter(measured.values()))["target"] >= 0).nonzero().squeeze(1)
    target = next(iter(measured.values()))["target"][positions].numpy()
    networks = {key: _answers(answers, positions) for key, answers in measured.items()}
    found = Evidence(positions.numpy(), target, networks, [])
    where = folder.path / _FOLDER
    shutil.rmtree(where, ignore_errors=True)  # of a finish that was cut short
    where.mkdir()
    _write(where / "answers.npz", found)
    samples = _disputed(where, splits, data, found)
    (where / "disputed.json").write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")
    return _summary(found)


def _answers(measured: Mapping[str, Tensor], positions: Tensor) -> Answers:
    return Answers(
        measured["predicted"][positions].numpy(), measured["confidence"][positions].double().numpy()
    )


def _write(path: Path, found: Evidence) -> None:
    arrays: dict[str, Any] = {
        "positions": found.positions.astype(np.int32),
        "target": found.target.astype(np.int32),
    }
    for key, answers in found.networks.items():
        arrays[f"predicted {key}"] = answers.predicted.astype(np.int32)
        arrays[f"confidence {key}"] = answers.confidence.astype(np.float32)
    draft = path.with_name("draft.npz")
    np.savez_compressed(draft, allow_pickle=False, **arrays)
    os.replace(draft, path)


def read(folder: RunFolder) -> Evidence | None:
    """What `keep` wrote; None for a run that kept nothing.

    Raises:
        RequestError: a file of it is damaged.
    """
    where = folder.path / _FOLDER
    try:
        with np.load(where / "answers.npz", allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        samples = json.loads((where / "disputed.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RequestError(
            f"{where} is damaged", fix=f"restore it, or delete it: the report of {folder} then leaves it out"
        ) from error
    keys = [name.removeprefix("predicted ") for name in arrays if name.startswith("predicted ")]
    networks = {
        key: Answers(
            arrays[f"predicted {key}"].astype(np.int64), arrays[f"confidence {key}"].astype(np.float64)
        )
        for key in keys
    }
    return Evidence(
        arrays["positions"].astype(np.int64), arrays["target"].astype(np.int64), networks, samples
    )


def _summary(found: Evidence) -> dict[str, Any]:
    errors = {
        key: round(calibration_error(reliability(answers, found.target)), 6)
        for key, answers in found.networks.items()
    }
    summary: dict[str, Any] = {"samples": len(found.target), "calibration_error": errors}
    if found.teacher is not None and "distilled" in found.networks:
        teacher, student = found.networks[found.teacher], found.networks["distilled"]
        counts = agreement(found.target, teacher.predicted, student.predicted)
        summary["agreement"] = {
            "both_right": counts.both,
            "only_teacher": counts.teacher,
            "only_student": counts.student,
            "neither": counts.neither,
            "same": counts.same,
        }
    return summary


# -- samples in dispute ------------------------------------------------------------------------------------


def _disputed(where: Path, splits: Splits, data: Dataset, found: Evidence) -> list[dict[str, Any]]:
    """The samples on which teacher and student differ most, as plain values; their pictures are written."""
    if found.teacher is None or "distilled" not in found.networks:
        return []
    places = disputed(found.networks[found.teacher], found.networks["distilled"], _MOST)
    positions = [int(found.positions[place]) for place in places]
    inputs = data.batch(positions)["inputs"] if positions else None
    samples = []
    for number, (place, position) in enumerate(zip(places, positions, strict=True)):
        shown = _shown(inputs, number, splits.reading, where)
        samples.append({"place": place, "sample": position, **shown})
    return samples


def _shown(inputs: Any, number: int, reading: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """A sample as a person may look at it; nothing for what is neither picture nor text nor row."""
    match reading["kind"]:
        case "image" if inputs[number].shape[0] in (1, 3):
            return _picture(inputs[number], where / f"{number + 1:02d}")
        case "row":
            return {"values": _row(inputs[number], RowEncoder.from_plain(reading["columns"]).columns)}
        case "text":
            tokens = inputs["input_ids"][number]
            text = load_tokenizer(reading["tokenizer"]).decode(tokens, skip_special_tokens=True)
            return {"text": _cut(text)}
        case "tokens":
            return {"text": _cut(" ".join(map(str, inputs[reading["names"][0]][number].tolist())))}
    return {}


def _picture(pixels: Tensor, path: Path) -> dict[str, Any]:
    """Writes pixels [C, H, W] from 0 to 1: small ones exactly, large ones smaller."""
    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    values = levels[0] if len(levels) == 1 else levels.permute(1, 2, 0)
    picture = Image.fromarray(values.contiguous().numpy())
    sharp = max(picture.size) <= _SHARP
    file = path.with_suffix(".png" if sharp else ".jpg")
    if sharp:
        picture.save(file, optimize=True)
    else:
        picture.thumbnail((_SIDE, _SIDE))
        picture.save(file, quality=85)
    return {"picture": file.name, "width": picture.width, "height": picture.height}


def _row(values: Tensor, columns: tuple[Column, ...]) -> list[tuple[str, str]]:
    """The first columns of a row as they stood in the table; missing numbers are the training mean."""
    told, place = [], 0
    for column in columns[:_COLUMNS]:
        width = max(len(column.categories), 1)
        part = values[place : place + width]
        place += width
        if not column.categories:
            told.append((column.name, f"{float(part[0]) * column.std + column.mean:.4g}"))
        elif float(part.max()) > 0:
            told.append((column.name, column.categories[int(part.argmax())]))
        else:
            told.append((column.name, "another"))
    return told


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} ..."


def address(folder: RunFolder, name: str) -> str:
    """A kept picture as a data address.

    Raises:
        RequestError: it is not there, or its name leads out of the folder.
    """
    if Path(name).name != name:
        raise RequestError(f"{folder}/{_FOLDER}/disputed.json names {name!r}, which is no file beside it")
    kind = "png" if name.endswith(".png") else "jpeg"
    try:
        held = (folder.path / _FOLDER / name).read_bytes()
    except FileNotFoundError as error:
        raise RequestError(f"{folder}/{_FOLDER}/{name} is missing", fix="restore it") from error
    return f"data:image/{kind};base64,{base64.b64encode(held).decode('ascii')}"
