"""How far two answers of a network are apart, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.record import Record

#: What a forward raises that cannot compute in some form: of torch, of the network's own checks, of taps that
#: find no layer, of a compiler that is missing.
FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    ArithmeticError,
    OSError,
)

#: The largest difference of a value that adding in another order explains, relative to the largest value.
TOLERANCE = 1e-4
#: The same on a GPU, whose convolutions round products to the ten bits of TF32.
TOLERANCE_ON_GPU = 5e-3


def tolerance(said: Any) -> float:
    """The largest difference from nested answers, relative, that their precision explains."""
    values = tensors(said)
    explained = TOLERANCE_ON_GPU if any(value.device.type == "cuda" for value in values) else TOLERANCE
    return max([explained, *(4 * torch.finfo(v.dtype).eps for v in values if v.is_floating_point())])


def device_of(network: nn.Module) -> torch.device:
    """Where a network is."""
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def difference(one: Any, other: Any) -> float:
    """The largest difference of two nested answers, each tensor relative to its own largest value.

    Infinite where shapes differ, or where values that are not finite (masked logits) are not the same.
    """
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return max((_apart(a, b) for a, b in pairs), default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    a, b = _numbers(one), _numbers(other)
    finite = a.isfinite()
    same = (a == b) | (a.isnan() & b.isnan())
    if not bool((finite & b.isfinite() | same).all()):
        return float("inf")
    a, b = a[finite], b[finite]
    return float((a - b).abs().max()) / max(float(a.abs().max()), 1e-12) if a.numel() else 0.0


def _numbers(value: Tensor) -> Tensor:
    """Real numbers in float64, where every device's can be held."""
    value = value.detach().cpu()
    return (torch.view_as_real(value) if value.is_complex() else value).double()


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
