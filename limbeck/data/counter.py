"""Random numbers as a pure function of what they belong to: no state, no order, no workers.

A counter-based generator: the bits for (seed, sample, view, name) are a hash of these, so they are the same
in any process, for any way of cutting the samples into batches, for any version of torch's generators.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

Part = int | str | Tensor

# The constants of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def bits(*parts: Part) -> Tensor:
    """64 random bits, as int64, for every combination of the parts.

    Args:
        parts: whole numbers, names, or int64 tensors that broadcast against each other. Their order counts.

    Returns:
        int64 tensor of the broadcast shape, each of the 2^64 values equally likely.
    """
    state = torch.zeros((), dtype=torch.int64)
    for part in parts:
        state = _mix(state ^ (part.long() if isinstance(part, Tensor) else _number(part)))
    return state


def uniform(*parts: Part) -> Tensor:
    """Numbers in [0, 1), float64, for every combination of the parts."""
    return _shift(bits(*parts), 11).double() * 2.0**-53


def permutation(number: int, *parts: Part) -> Tensor:
    """The positions 0..number-1 in an order that is a pure function of the parts; int64 [number]."""
    return torch.argsort(bits(*parts, torch.arange(number)), stable=True)


def _mix(state: Tensor) -> Tensor:
    """One step of SplitMix64; int64 arithmetic wraps, which is arithmetic modulo 2^64."""
    state = state + _signed(_STEP)
    state = (state ^ _shift(state, 30)) * _signed(_FIRST)
    state = (state ^ _shift(state, 27)) * _signed(_SECOND)
    return state ^ _shift(state, 31)


def _shift(value: Tensor, places: int) -> Tensor:
    """Shift to the right that fills with zeros; torch's own repeats the sign."""
    return (value >> places) & ((1 << (64 - places)) - 1)


def _number(part: int | str) -> int:
    if isinstance(part, str):
        part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
    return _signed(part)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
