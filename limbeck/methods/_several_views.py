"""Batches that hold several views of each sample, rows that follow each other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from limbeck.errors import RequestError

FIX = (
    "the views of a sample one after the other: Loader(data, size, seed=0, places=V), or "
    "pixels.repeat_interleave(V, 0), every place turned or cropped in its own way"
)


def check_views(rows: int, views: int) -> None:
    """Refuses a number of rows that is not some samples in so many views."""
    if not rows or rows % views:
        raise RequestError(f"{rows} rows are not {views} views of each sample", fix=FIX)


def check_same_sample(values: Tensor, views: int, what: str) -> None:
    """Refuses rows of which those that should be views of one sample say otherwise. Reads a value back.

    Args:
        values: what all views of a sample share, [B * V, ...]: its index or its label.
        views: V.
        what: its name, as "index".
    """
    grouped = values.reshape(-1, views, *values.shape[1:])
    # NaN stands for real values that are not known; it differs from itself.
    same = (grouped == grouped[:, :1]) | ((grouped != grouped) & (grouped[:, :1] != grouped[:, :1]))
    wrong = (~same).flatten(1).any(1)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0]) * views
        raise RequestError(
            f"rows {first} to {first + views - 1} of the batch should be {views} views of one sample, and "
            f"differ in their {what}: {grouped[first // views].tolist()}",
            fix=FIX,
        )


def warn_of_equal_views(batch: Mapping[str, Any], views: int) -> None:
    """Warns where all views of every sample are the same values. Reads a value back.

    Args:
        batch: normal form, with inputs of one tensor [B * V, ...]; others are not looked at.
        views: V.
    """
    inputs = batch["inputs"]
    if not isinstance(inputs, Tensor):
        return
    grouped = inputs.reshape(-1, views, *inputs.shape[1:])
    if bool((grouped == grouped[:, :1]).all()):
        warnings.warn(
            f"the {views} views of every sample are equal, so they say nothing of how a sample and its views "
            'relate: add "rotate" to data.augment, or crops',
            stacklevel=2,
        )
