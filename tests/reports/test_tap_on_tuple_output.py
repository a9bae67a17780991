"""M8, microsoft/nni#5600: an encoder block that returns a tuple or a mapping."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.taps import Taps, layers
from limbeck.task import Classification

TASK = Classification(2)
BATCH = {"inputs": torch.randn(3, 4)}


class Block(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.fc = form, nn.Linear(4, 4)

    def forward(self, x):
        hidden, weights = self.fc(x), x.softmax(1)[:, :2]
        forms = {
            "tuple": (hidden, weights),
            "mapping": {"hidden": hidden, "weights": weights},
            "none first": (None, weights),
            "no tensor": object(),
        }
        return forms[self.form]


class Encoder(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.block, self.head = Block(form), nn.Linear(4, 2)

    def forward(self, x):
        self.block(x)
        return self.head(x)


@pytest.mark.parametrize(("form", "part"), [("tuple", "1"), ("mapping", "weights")])
def test_the_part_can_be_named(form, part):
    network = Encoder(form)
    record = Taps(network, ["block", f"block:{part}"], task=TASK, trainable=False)(BATCH)
    assert torch.equal(record["block"], network.block.fc(BATCH["inputs"]))
    assert torch.equal(record[f"block:{part}"], BATCH["inputs"].softmax(1)[:, :2])


def test_the_default_is_stated():
    for form, kind in (("tuple", "tuple"), ("mapping", "dict"), ("none first", "tuple")):
        (row,) = (row for row in layers(Encoder(form), BATCH, TASK) if row.path == "block")
        assert row.note == f"first tensor of {kind} of 2; choose by :part"
        assert row.shape == ((3, 2) if form == "none first" else (3, 4))


def test_what_is_no_tensor_is_refused():
    with pytest.raises(RequestError, match="holds no tensor"):
        Taps(Encoder("no tensor"), ["block"], task=TASK, trainable=False).dry(BATCH)
    with pytest.raises(RequestError, match="NoneType, which holds no tensor") as caught:
        Taps(Encoder("none first"), ["block:0"], task=TASK, trainable=False).dry(BATCH)
    assert "block:1" in caught.value.near
    with pytest.raises(RequestError, match="its parts are hidden, weights"):
        Taps(Encoder("mapping"), ["block:attention"], task=TASK, trainable=False).dry(BATCH)
    (row,) = (row for row in layers(Encoder("no tensor"), BATCH, TASK) if row.path == "block")
    assert not row.observable


def test_model_outputs_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=2,
    )
    network = transformers.BertForSequenceClassification(config).eval()
    batch = {"inputs": {"input_ids": torch.randint(20, (3, 5)), "attention_mask": torch.ones(3, 5).long()}}
    paths = ["bert", "bert:last_hidden_state", "bert:pooler_output", "bert.encoder.layer.1"]
    record = Taps(network, paths, task=TASK, trainable=False)(batch)
    assert torch.equal(record["bert"], record["bert:last_hidden_state"])
    assert torch.equal(record["bert"], record["bert.encoder.layer.1"])
    assert record["bert:pooler_output"].shape == (3, 8)
