"""From what a source reads to `Splits`: missing parts are drawn, options applied, and all of it said."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from limbeck.data.augment import Augmentation
from limbeck.data.dataset import Dataset, Splits
from limbeck.data.images import find_unreadable
from limbeck.data.labels import absent_notes, single_notes
from limbeck.data.mixing import mixing_of
from limbeck.data.selection import is_labelled, limited, split
from limbeck.data.views import Views
from limbeck.errors import RequestError
from limbeck.task import Classification, Task

#: Names of folders, files and split columns for each part, as people use them.
PART_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}

#: Share that is drawn for a part of its own where a source has none.
DEFAULT_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a recipe says about its data beside the source; see `load_source`."""

    root: Path | None = None
    seed: int = 0
    target: str | None = None
    image: str | None = None
    text: Sequence[str] = ()
    features: Sequence[str] = ()
    tokenizer: str | None = None
    max_length: int = 128
    split: str | None = None
    task: Literal["classes", "values"] | None = None
    validation: float = DEFAULT_SHARE
    test: float | None = None
    size: int | None = None
    limit: int | None = None
    augment: Sequence[Augmentation] = ()
    mix: str = "none"
    mix_alpha: float | None = None
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        shares = {"validation": self.validation, "test": self.test or 0.0}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise RequestError(
                    f"data.{name} = {share}: a share of the training samples, from 0 up to 1",
                    fix=f"data.{name} = {DEFAULT_SHARE}",
                )
        if sum(shares.values()) >= 1:
            raise RequestError(
                "data.validation and data.test leave nothing to train on", fix="smaller shares"
            )
        for name, number in {"size": self.size, "limit": self.limit, "max_length": self.max_length}.items():
            if number is not None and number < 1:
                raise RequestError(f"data.{name} = {number}: at least 1 is needed")
        Views(self.seed, self.augment)  # refuses unknown names before anything is read
        mixing_of(self.mix, self.mix_alpha)


def part_of(name: str) -> str | None:
    """Which part a folder, file or value of a split column names; None for anything else."""
    lowered = name.lower()
    return next((part for part, names in PART_NAMES.items() if lowered in names), None)


def assemble(
    name: str,
    parts: Mapping[str, Dataset],
    task: Task,
    options: Options,
    *,
    notes: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
) -> Splits:
    """The splits of a source.

    Args:
        name: the source, as the recipe names it.
        parts: `train` and where the source has them `validation` and `test`.
        task: what the targets mean.
        options: shares to draw, limit, augmentations.
        notes: what the source has to say.
        reading: how a raw sample becomes an input, for `Splits.reading`.
    """
    said = list(notes)
    parts = _without_unreadable(parts, said) if options.skip_unreadable else dict(parts)
    for part in ("validation", "test"):
        if part in parts and not bool(is_labelled(parts[part].targets()).any()):
            said.append(f"{part} has no labels, so it is not used")
            del parts[part]
    parts, division = _with_drawn_parts(parts, options, said)
    train = limited(parts["train"], options.limit, options.seed)
    if isinstance(task, Classification) and task.classes:
        said += single_notes(task.classes, train.targets())
        if division is not None:
            drawn = {part: parts[part].targets() for part in division if part != "train"}
            said += absent_notes(task.classes, drawn)
    if options.augment:
        train = train.augment(Views(options.seed, options.augment))
    mixing = mixing_of(options.mix, options.mix_alpha)
    if mixing is not None:
        train = train.mix(mixing)
    return Splits(
        train,
        parts.get("validation"),
        parts.get("test"),
        task,
        name,
        said,
        division,
        dict(reading or {"kind": "tensor"}),
    )


def training_rows(targets: Mapping[str, Tensor], options: Options) -> Tensor:
    """Positions of the training part that stay in it when `assemble` has drawn what is missing; int64.

    What a source learns from its data, as the mean of a column, it learns from these alone.
    """
    present = [part for part, values in targets.items() if bool(is_labelled(values).any())]
    train = targets["train"]
    index = torch.arange(len(train))
    shares = _shares(present, options)
    return split(train, shares, options.seed, index)["train"] if shares else index


def _shares(present: Collection[str], options: Options) -> dict[str, float]:
    """What is drawn: validation where it is missing; test by its share, or if there is no split at all."""
    shares = {}
    if "validation" not in present and options.validation > 0:
        shares["validation"] = options.validation
    if "test" not in present:
        by_default = DEFAULT_SHARE if "validation" not in present else 0.0
        share = by_default if options.test is None else options.test
        if share > 0:
            shares["test"] = share
    return shares


def _without_unreadable(parts: Mapping[str, Dataset], said: list[str]) -> dict[str, Dataset]:
    """The parts without samples that cannot be read; the others keep their index values."""
    kept = {}
    for part, data in parts.items():
        bad = find_unreadable(data)
        if bad:
            names = ", ".join(item.name for item in bad[:3])
            said.append(f"{part}: {len(bad)} unreadable of {len(data)} left out as asked for: {names}")
            good = torch.ones(len(data), dtype=torch.bool)
            good[[item.position for item in bad]] = False
            data = data.subset(good.nonzero().squeeze(1))
        kept[part] = data
    return kept


def _with_drawn_parts(
    parts: dict[str, Dataset], options: Options, said: list[str]
) -> tuple[dict[str, Dataset], dict[str, Tensor] | None]:
    """Draws what the source lacks out of its training part."""
    shares = _shares(parts, options)
    if "test" not in (*parts, *shares):
        said.append("there is no test part (data.test = 0.1 would draw one)")
    if not shares:
        return parts, None
    train = parts["train"]
    drawn = split(train.targets(), shares, options.seed, train.index())
    told = ", ".join(f"{len(drawn[part]):,} for {part}" for part in shares)
    said.append(f"drawn from the {len(train):,} training samples by seed {options.seed}: {told}")
    for part in drawn:
        if len(drawn[part]) == 0:
            raise RequestError(
                f"{len(train)} training samples are too few to draw a {part} part from",
                fix=f"more samples, or data.{part} = 0" if part != "train" else "smaller shares",
            )
    index = train.index()
    division = {part: index[chosen] for part, chosen in drawn.items()}
    return {**parts, **{part: train.subset(chosen) for part, chosen in drawn.items()}}, division
