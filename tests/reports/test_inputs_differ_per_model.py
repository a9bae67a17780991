"""Dropping `token_type_ids` for a student that does not take them changed the teacher too."""

from __future__ import annotations

import logging

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from limbeck import check
from limbeck._run.screen import silent
from limbeck.integrations.huggingface import DistillationTrainer
from limbeck.methods import KD
from tests.integrations.loops import arguments


class Small(nn.Module):
    """Declares its inputs, and takes no other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.words, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1).float()
        return self.head((self.words(input_ids) * mask).sum(1) / mask.sum(1))


def teacher():
    torch.manual_seed(2)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 30}
    return BertForSequenceClassification(BertConfig(num_hidden_layers=1, num_labels=3, **sizes)).eval()


def pairs(samples=16):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 30, (samples, 6), generator=generator)
    kinds = torch.tensor([0, 0, 0, 1, 1, 1]).expand(samples, -1)
    labels = torch.randint(0, 3, (samples,), generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": kinds,
        "labels": labels,
    }


def expected(batch):
    with torch.no_grad():
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return teacher()(**inputs).logits


def test_each_model_gets_the_inputs_that_it_declares():
    batch = pairs()
    method = KD(Small(), teacher())
    answer = method.teacher(batch).output
    assert torch.equal(answer, expected(batch))
    without = {name: value for name, value in batch.items() if name != "token_type_ids"}
    assert not torch.allclose(answer, method.teacher(without).output)
    method(batch).total.backward()


def test_what_was_withheld_from_whom_is_said_once(caplog):
    class Other(Small):
        pass

    method = KD(Other(), teacher())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            method(pairs())
    said = [record.getMessage() for record in caplog.records if "token_type_ids" in record.getMessage()]
    assert said == ["Other takes no token_type_ids: not given to it"]


def test_the_trainer_keeps_the_inputs_of_the_teacher(tmp_path):
    batch = pairs()
    data = [{name: value[i] for name, value in batch.items()} for i in range(16)]
    method, seen = KD(Small(), teacher()), []
    method.teacher.model.register_forward_hook(lambda module, inputs, output: seen.append(output.logits))
    DistillationTrainer(method, arguments(tmp_path), train_dataset=data).train()
    torch.testing.assert_close(torch.cat(seen), expected(batch))


def data():
    return pairs(48), pairs(16)


def small(num_classes):
    return Small()


def bert(num_classes):
    return teacher()


def test_check_says_what_is_withheld_from_whom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = __name__
    (tmp_path / "mine.toml").write_text(
        f'name = "words"\n[data]\nsource = "{name}:data"\n[teacher]\nmodel = "{name}:bert"\n'
        f'[student]\nmodel = "{name}:small"\n[train]\nbatch_size = 8\n[export]\nto = []\n'
    )
    done = check("mine.toml", screen=silent())
    said = [note for note in done.notes if "token_type_ids" in note]
    assert said == ["the student takes no token_type_ids: not given to it"]
