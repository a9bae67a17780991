"""How far two answers of a network are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from limbeck.record import Record


def difference(one: Any, other: Any) -> float:
    """The largest difference of two nested answers, each tensor relative to its own largest value.

    Infinite where shapes differ or a value is not finite.
    """
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return max((_apart(a, b) for a, b in pairs), default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    a, b = one.detach().double(), other.detach().double()
    if not bool(b.isfinite().all()):
        return float("inf")
    scale = float(a.abs().max()) if a.numel() else 0.0
    return float((a - b).abs().max()) / max(scale, 1e-12) if a.numel() else 0.0


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in nested records, mappings and lists, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Record):
        return [*tensors(value.output), *tensors(value.layers)]
    if isinstance(value, Mapping):
        return [found for item in value.values() for found in tensors(item)]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in tensors(item)]
    return []


def first_line(error: BaseException) -> str:
    """What an error of another library says, in at most sixty characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 60 else f"{lines[0][:57]}..."
