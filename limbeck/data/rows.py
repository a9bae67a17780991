"""Rows of a table as vectors: numbers centred and scaled, categories as one place each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.data.labels import listed
from limbeck.errors import RequestError

#: How tables write that a value is not known.
MISSING = ("", "?", "NA", "N/A", "na", "NaN", "nan", "NULL", "null", "None")

#: Different texts in a column beyond which it is no category.
_MOST_CATEGORIES = 100


@dataclass(frozen=True)
class Column:
    """One column of a table and the places that it takes in the vector.

    Attributes:
        name: of the column.
        mean: of the training numbers; a missing number becomes it.
        std: of the training numbers; 1 for a column that never changes.
        categories: of a column of texts, one place each; empty for numbers. Others and missing ones are
            zeros.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()


class RowEncoder:
    """Turns columns into vectors [N, F]; everything it knows comes from the training rows.

    Args:
        columns: in the order of the vector.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)

    @classmethod
    def fit(cls, table: Mapping[str, Sequence[Any]]) -> RowEncoder:
        """From the training rows: which columns are numbers, which are categories."""
        return cls([_fitted(name, table[name]) for name in table])

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> RowEncoder:
        """From what `plain` returned."""
        return cls([Column(**{**column, "categories": tuple(column["categories"])}) for column in plain])

    def plain(self) -> list[dict[str, Any]]:
        """Plain values, for a `config.json`."""
        return [{**asdict(column), "categories": list(column.categories)} for column in self.columns]

    @property
    def width(self) -> int:
        """Length F of the vectors."""
        return sum(max(len(column.categories), 1) for column in self.columns)

    def encode(self, table: Mapping[str, Sequence[Any]]) -> Tensor:
        """Vectors of some rows, float32 [N, F]."""
        for column in self.columns:
            if column.name not in table:
                raise RequestError(f"the column {column.name!r} is missing; there are {listed(table)}")
        return torch.cat([_encoded(column, table[column.name]) for column in self.columns], dim=1)


def numbers(values: Sequence[Any]) -> list[float] | None:
    """Values as numbers, NaN where missing; None if any is something else."""
    result = []
    for value in values:
        if value is None or (isinstance(value, str) and value.strip() in MISSING):
            result.append(math.nan)
            continue
        if not isinstance(value, (int, float, str)):
            return None
        try:
            result.append(float(value))
        except ValueError:
            return None
    return result


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the numbers that are not NaN; a deviation of 0 becomes 1."""
    known = torch.tensor(values, dtype=torch.float64)
    known = known[~known.isnan()]
    if len(known) == 0:
        return 0.0, 1.0
    std = float(known.std(correction=0))
    return float(known.mean()), std if std > 0 else 1.0


def _fitted(name: str, values: Sequence[Any]) -> Column:
    found = numbers(values)
    if found is not None:
        if any(math.isinf(value) for value in found):
            raise RequestError(
                f"the column {name!r} holds infinite numbers", fix="clean them, or leave it out"
            )
        return Column(name, *mean_and_std(found))
    kinds = {type(value).__name__ for value in values if value is not None}
    if kinds != {"str"}:
        raise RequestError(
            f"the column {name!r} holds {', '.join(sorted(kinds))}; inputs are numbers or texts",
            fix="name the columns to use: data.features = [...]",
        )
    categories = sorted({value for value in values if value is not None and value.strip() not in MISSING})
    if len(categories) > _MOST_CATEGORIES:
        raise RequestError(
            f"the column {name!r} holds {len(categories)} different texts: neither numbers nor a category",
            fix=f'data.features without it; or, for language, data.text = ["{name}"] and data.tokenizer',
        )
    return Column(name, categories=tuple(categories))


def _encoded(column: Column, values: Sequence[Any]) -> Tensor:
    if column.categories:
        places = {category: i for i, category in enumerate(column.categories)}
        chosen = torch.tensor([places.get(value, len(places)) for value in values], dtype=torch.int64)
        return torch.eye(len(places) + 1, len(places))[chosen]
    found = numbers(values)
    if found is None:
        wrong = next(value for value in values if numbers([value]) is None)
        raise RequestError(f"the column {column.name!r} holds {wrong!r}; in training it holds numbers")
    scaled = (torch.tensor(found, dtype=torch.float64) - column.mean) / column.std
    return scaled.nan_to_num(0.0).float()[:, None]
