"""M5, pytorch/pytorch#78109, sgl-project/sglang#21689: a hook on a module that its parent does not call."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.taps import Taps, layers
from limbeck.task import Classification

TASK = Classification(4)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x):
        return self.block.forward(self.attention(x, x, x)[0]).mean(1)


@pytest.mark.parametrize(("path", "nearest"), [("attention.out_proj", "attention"), ("block", "block.0")])
def test_refused_with_the_nearest_that_fires(path, nearest):
    network, batch = Attends(), {"inputs": torch.randn(2, 3, 4)}
    for trainable in (True, False):
        with pytest.raises(RequestError, match="is never called") as caught:
            Taps(network, [path], task=TASK, trainable=trainable).dry(batch)
        assert nearest in caught.value.near
        assert caught.value.exit_code == 2
        with pytest.raises(RequestError, match="is never called"):  # in a loop that makes no dry pass, too
            Taps(network, [path], task=TASK, trainable=trainable)(batch)
    rows = {row.path: row for row in layers(network, batch, TASK)}
    assert not rows[path].observable
    assert rows[nearest].observable


def test_attention_dropout_under_fused_attention():
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", num_classes=4, depth=2, embed_dim=24, img_size=32)
    batch = {"inputs": torch.randn(2, 3, 32, 32)}
    with pytest.raises(RequestError, match="is never called") as caught:
        Taps(network, ["blocks.0.attn.attn_drop"], task=TASK, trainable=False).dry(batch)
    assert caught.value.near[0] == "blocks.0.attn"
    rows = {row.path: row.observable for row in layers(network, batch, TASK)}
    assert not rows["blocks.0.attn.attn_drop"]
    assert rows["blocks.0.attn.proj"]
