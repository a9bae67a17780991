"""What a report needs beside run.json: the answers to every sample, and the samples in dispute."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limbeck._report.answers import (
    Agreement,
    Answers,
    Whole,
    agreement,
    calibration_error,
    disputed,
    reliability,
)
from limbeck._run.folder import RunFolder
from limbeck._seal import damaged, seal, text_of, unseal
from limbeck.data.dataset import Dataset, Splits
from limbeck.data.rows import Column, RowEncoder
from limbeck.data.text import load_tokenizer
from limbeck.errors import RequestError

if TYPE_CHECKING:
    from limbeck._run.finish import Final

_FOLDER, _ANSWERS, _INDEX = "evidence", "answers.npz", "evidence.json"
_PREDICTED, _CONFIDENCE = "predicted ", "confidence "
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

    @property
    def pair(self) -> tuple[Answers, Answers] | None:
        """Of that teacher and of the distilled student; None where one of them is missing."""
        if self.teacher is None or "distilled" not in self.networks:
            return None
        return self.networks[self.teacher], self.networks["distilled"]

    def agreement(self) -> Agreement | None:
        """Of these two."""
        return self.pair and agreement(self.target, *(each.predicted for each in self.pair))


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
    target = next(iter(measured.values()))["target"]
    positions = (target >= 0).nonzero().squeeze(1)
    networks = {key: _answers(answers, positions) for key, answers in measured.items()}
    found = Evidence(positions.numpy(), target[positions].numpy(), networks, [])
    where = folder.path / _FOLDER
    shutil.rmtree(where, ignore_errors=True)  # of a finish that was cut short
    where.mkdir()
    answers = _packed(found)
    (where / _ANSWERS).write_bytes(answers)
    told = {"answers": hashlib.sha256(answers).hexdigest(), "disputed": _disputed(splits, data, found)}
    (where / _INDEX).write_text(seal(told, indent=1), encoding="utf-8", newline="\n")
    return _summary(found)


def _answers(measured: Mapping[str, Tensor], positions: Tensor) -> Answers:
    return Answers(
        measured["predicted"][positions].numpy(), measured["confidence"][positions].double().numpy()
    )


def _packed(found: Evidence) -> bytes:
    arrays: dict[str, Any] = {
        "positions": found.positions.astype(np.int32),
        "target": found.target.astype(np.int32),
    }
    for key, answers in found.networks.items():
        arrays[f"{_PREDICTED}{key}"] = answers.predicted.astype(np.int32)
        arrays[f"{_CONFIDENCE}{key}"] = answers.confidence.astype(np.float32)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def read(folder: RunFolder) -> Evidence | None:
    """What `keep` wrote; None for a run that kept nothing.

    Raises:
        RequestError: a file of it is damaged or missing.
    """
    where = folder.path / _FOLDER
    if not where.is_dir():
        return None
    fix = f"restore it from a copy; without the folder {where.as_posix()} a report leaves these sections out"
    try:
        told = unseal(text_of(where / _INDEX, fix), where / _INDEX, fix)
        packed = (where / _ANSWERS).read_bytes()
    except FileNotFoundError as error:
        raise RequestError(f"{error.filename} is missing", fix=fix) from error
    if hashlib.sha256(packed).hexdigest() != told["answers"]:
        raise damaged(where / _ANSWERS, fix)
    with np.load(io.BytesIO(packed), allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    keys = [name.removeprefix(_PREDICTED) for name in arrays if name.startswith(_PREDICTED)]
    networks = {
        key: Answers(_whole(arrays[f"{_PREDICTED}{key}"]), arrays[f"{_CONFIDENCE}{key}"].astype(np.float64))
        for key in keys
    }
    return Evidence(_whole(arrays["positions"]), _whole(arrays["target"]), networks, told["disputed"])


def _whole(values: Any) -> Whole:
    return np.asarray(values, np.int64)


def _summary(found: Evidence) -> dict[str, Any]:
    errors = {
        key: round(calibration_error(reliability(answers, found.target)), 6)
        for key, answers in found.networks.items()
    }
    summary: dict[str, Any] = {"samples": len(found.target), "calibration_error": errors}
    counts = found.agreement()
    if counts is not None:
        summary["agreement"] = {
            "both_right": counts.both,
            "only_teacher": counts.teacher,
            "only_student": counts.student,
            "neither": counts.neither,
            "same": counts.same,
        }
    return summary


# -- samples in dispute ------------------------------------------------------------------------------------


def _disputed(splits: Splits, data: Dataset, found: Evidence) -> list[dict[str, Any]]:
    """The samples on which teacher and student differ most, as plain values."""
    if found.pair is None:
        return []
    places = disputed(*found.pair, _MOST)
    positions = [int(found.positions[place]) for place in places]
    inputs = data.batch(positions)["inputs"] if positions else None
    samples = []
    for number, (place, position) in enumerate(zip(places, positions, strict=True)):
        shown = _shown(inputs, number, splits.reading)
        samples.append({"place": place, "sample": position, **shown})
    return samples


def _shown(inputs: Any, number: int, reading: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as a person may look at it; nothing for what is neither picture nor text nor row."""
    match reading["kind"]:
        case "image" if inputs[number].shape[0] in (1, 3):
            return _picture(inputs[number])
        case "row":
            return {"values": _row(inputs[number], RowEncoder.from_plain(reading["columns"]).columns)}
        case "text":
            tokens = inputs["input_ids"][number]
            text = load_tokenizer(reading["tokenizer"]).decode(tokens, skip_special_tokens=True)
            return {"text": _cut(text)}
        case "tokens":
            return {"text": _cut(" ".join(map(str, inputs[reading["names"][0]][number].tolist())))}
    return {}


def _picture(pixels: Tensor) -> dict[str, Any]:
    """Pixels [C, H, W] from 0 to 1 as a data address: small ones exactly, large ones smaller."""
    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    values = levels[0] if len(levels) == 1 else levels.permute(1, 2, 0)
    picture = Image.fromarray(values.contiguous().numpy())
    stream = io.BytesIO()
    kind = "png" if max(picture.size) <= _SHARP else "jpeg"
    if kind == "png":
        picture.save(stream, kind, optimize=True)
    else:
        picture.thumbnail((_SIDE, _SIDE))
        picture.save(stream, kind, quality=85)
    address = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return {"picture": address, "width": picture.width, "height": picture.height}


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
