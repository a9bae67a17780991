"""Class names and target numbers, made from the training labels alone."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.errors import RequestError, nearest

#: A whole number as texts write it; tables with gaps write 3 as "3.0".
_WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")


@dataclass(frozen=True)
class Mapped:
    """Class names in the order of the outputs, targets of each part (-1 = none), and notes for the plan."""

    classes: list[str]
    targets: dict[str, Tensor]
    notes: list[str]


def map_labels(
    parts: Mapping[str, Sequence[Any]],
    *,
    classes: Sequence[str] | None = None,
    order: Literal["value", "text"] = "value",
) -> Mapped:
    """Numbers the labels of every part by the classes of the training part.

    Args:
        parts: labels by part, `train` among them: texts, whole numbers, truth values; None, "" and NaN are
            none.
        classes: all names in their order, where the source states them; else those found in training.
        order: of found classes: whole numbers by value and texts by their characters, or all by characters.

    Raises:
        RequestError: training has fewer than two classes, or another part has a class that training lacks.
    """
    labels = {name: [_normal(value) for value in values] for name, values in parts.items()}
    found = {value for value in labels["train"] if value is not None}
    if classes is None and order == "value" and _all_whole(found):
        labels = {name: [_number(value) for value in values] for name, values in labels.items()}
        found = {value for value in labels["train"] if value is not None}
    names: list[Any] = [_normal(name) for name in classes] if classes else sorted(found, key=_by(order))
    _check_training(names, found, len(labels["train"]))
    numbers = {name: i for i, name in enumerate(names)}
    for part, values in labels.items():
        _check_known(
            part, values, numbers if part == "train" else {n: numbers[n] for n in names if n in found}
        )
    targets = {
        part: torch.tensor([-1 if value is None else numbers[value] for value in values], dtype=torch.int64)
        for part, values in labels.items()
    }
    texts = [str(name) for name in names]
    return Mapped(texts, targets, [*_mapping_note(names), *absent_notes(texts, targets)])


def absent_notes(classes: Sequence[str], targets: Mapping[str, Tensor]) -> list[str]:
    """Which classes a part lacks altogether, a sentence a part."""
    notes = []
    for part, values in targets.items():
        counts = torch.bincount(values[values >= 0], minlength=len(classes))
        absent = [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
        if absent and len(absent) < len(classes):
            noun = "class" if len(absent) == 1 else "classes"
            notes.append(f"{part} has no sample of {noun} {listed(absent)}, so no score for it there")
    return notes


def single_notes(classes: Sequence[str], targets: Tensor) -> list[str]:
    """Which classes have a single training sample."""
    counts = torch.bincount(targets[targets >= 0], minlength=len(classes)).tolist()
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    if not single:
        return []
    noun = "class" if len(single) == 1 else "classes"
    return [f"{noun} {listed(single)}: 1 sample in training, which stays there"]


def listed(names: Iterable[object], most: int = 5) -> str:
    """Names in quotes, the first few."""
    given = [repr(str(name)) for name in names]
    rest = len(given) - most
    return ", ".join(given[:most]) + (f" and {rest} more" if rest > 0 else "")


def compose(name: str) -> str:
    """A name in Unicode's composed form, in which equal-looking names are equal."""
    return unicodedata.normalize("NFC", name)


def _normal(value: Any) -> str | int | None:
    """A label as text or whole number; None where there is none."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        return compose(value) or None
    if isinstance(value, (int, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    raise RequestError(
        f"the label {value!r} is neither text nor a whole number", fix='data.task = "values" for real values'
    )


def _all_whole(found: set[Any]) -> bool:
    return all(isinstance(value, int) or _WHOLE_NUMBER.fullmatch(value) for value in found)


def _number(value: Any) -> Any:
    written = _WHOLE_NUMBER.fullmatch(value) if isinstance(value, str) else None
    return int(written[1]) if written else value


def _by(order: Literal["value", "text"]) -> Any:
    """Sort key: numbers before texts by value, or everything by its characters."""
    if order == "text":
        return str
    return lambda value: (isinstance(value, str), value)


def _check_training(names: Sequence[Any], found: set[Any], number: int) -> None:
    if number == 0:
        raise RequestError("there is no training sample")
    if not found:
        raise RequestError("no training sample has a label")
    if len(names) < 2:
        raise RequestError(
            f"all {number} training samples are of one class, {str(names[0])!r}; at least two are needed",
            fix="name the column of the labels, or give each class a folder of its own",
        )


def _check_known(part: str, values: Sequence[Any], known: Mapping[Any, int]) -> None:
    unknown = sorted({str(value) for value in values if value is not None and value not in known})
    if not unknown:
        return
    number = sum(1 for value in values if str(value) in unknown)
    samples = f"{number} sample" + ("s" if number > 1 else "")
    raise RequestError(
        f"{part} has {samples} of {listed(unknown)}, a class that training does not have",
        near=nearest(unknown[0], map(str, known)),
        fix=f"add training samples of {unknown[0]!r}, or leave it out of {part}",
    )


def _mapping_note(names: Sequence[Any]) -> list[str]:
    """Numbers that are not 0, 1, 2, ... are shown with the outputs that they get."""
    if not all(isinstance(name, int) for name in names) or list(names) == list(range(len(names))):
        return []
    pairs = [f"{name} -> {i}" for i, name in enumerate(names)]
    shown = pairs if len(pairs) <= 4 else [*pairs[:2], "...", pairs[-1]]
    return [f"labels are numbered from the training data: {', '.join(shown)}"]
