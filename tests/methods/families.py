"""Tiny networks of many families, built in and of timm, and pictures for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.models import build, built_in_names

CLASSES = 4

#: Vision transformers by name: what sets each apart.
TRANSFORMERS: Mapping[str, Mapping[str, Any]] = {
    "vit": {},
    "vit-mean": {"global_pool": "avg", "fc_norm": False},
    "vit-registers": {"reg_tokens": 1},
}


def network(name: str, size: int, channels: int, seed: int) -> nn.Module:
    """A tiny network of a family: a built-in name, `mixer`, `swin`, or one of the transformers."""
    torch.manual_seed(seed)
    if name in built_in_names():
        return build(name, num_classes=CLASSES, channels=channels, size=size)
    families = pytest.importorskip("timm").models
    shared: dict[str, Any] = {"img_size": size, "in_chans": channels, "num_classes": CLASSES}
    patch = {"patch_size": size // 4, "embed_dim": 12}
    if name == "mixer":
        return families.mlp_mixer.MlpMixer(**shared, **patch, num_blocks=4)
    if name == "swin":
        depths = {"depths": (1, 1, 1), "num_heads": (1, 2, 2)}
        swin = families.swin_transformer.SwinTransformer
        return swin(**shared, patch_size=2, embed_dim=12, window_size=2, **depths)
    transformer = families.vision_transformer.VisionTransformer
    return transformer(**shared, **patch, depth=4, num_heads=2, **TRANSFORMERS[name])


def batch(size: int | tuple[int, int], channels: int, samples: int = 4) -> dict[str, Tensor]:
    """Pictures and their classes, in normal form."""
    height, width = (size, size) if isinstance(size, int) else size
    pictures = torch.rand(samples, channels, height, width, generator=torch.Generator().manual_seed(0))
    return {"inputs": pictures, "targets": torch.arange(samples) % CLASSES}
