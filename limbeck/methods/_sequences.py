"""Padding of sequences: which positions of a batch are valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from limbeck.errors import RequestError


def valid_positions(batch: Mapping[str, Any], feature: Tensor, layer: str) -> Tensor | None:
    """Which positions of a layer's value are not padding.

    Looked for, in this order: `mask` of the batch, `attention_mask` and `decoder_attention_mask` of its
    inputs. The first with the length of the value is taken.

    Args:
        batch: normal form.
        feature: [B, L, D].
        layer: its path, for the message.

    Returns:
        [B, L] bool, or None where the batch has no mask and every position is valid.

    Raises:
        RequestError: the batch has masks, and none has the length of the value.
    """
    inputs = batch.get("inputs")
    keywords = inputs if isinstance(inputs, Mapping) else {}
    found = [
        mask
        for mask in (
            batch.get("mask"),
            keywords.get("attention_mask"),
            keywords.get("decoder_attention_mask"),
        )
        if isinstance(mask, Tensor) and mask.ndim == 2
    ]
    for mask in found:
        if mask.shape == feature.shape[:2]:
            return mask.bool()
    if found:
        raise RequestError(
            f"layer {layer!r} has {feature.shape[1]} positions, and the masks of the batch have "
            f"{', '.join(str(mask.shape[1]) for mask in found)}",
            fix="tap a layer with one value a position, or give the batch a mask [B, L] of that length",
        )
    return None
