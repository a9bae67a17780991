"""The Trainer drops every column that the model does not take, so the index never reached the loss."""

from __future__ import annotations

import dataclasses

import datasets
import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.integrations.huggingface import DistillationTrainer
from limbeck.method import Method
from limbeck.methods import KD
from limbeck.record import Losses
from limbeck.task import Classification
from tests.integrations.loops import arguments


class Bag(nn.Module):
    """A mean of embeddings; refuses whatever it does not know."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, input_ids):
        return self.head(self.words(input_ids).mean(1))


class Remembering(Method):
    """Notes the index of the samples that it sees."""

    card = dataclasses.replace(KD.card, slug="remembering", needs=("labels", "index"))

    def __init__(self, student):
        super().__init__(student, task=Classification())
        self.seen = []

    def losses(self, student, teacher, batch):
        self.seen += batch["index"].tolist()
        return Losses({"hard": self.task.loss(student.output, batch)}, {"hard": 1.0})


def data(*, index):
    generator = torch.Generator().manual_seed(0)
    columns = {
        "text": [f"sentence {i}" for i in range(16)],
        "input_ids": torch.randint(0, 20, (16, 5), generator=generator).tolist(),
        "label": torch.randint(0, 3, (16,), generator=generator).tolist(),
    }
    if index:
        columns["index"] = list(range(100, 116))
    return datasets.Dataset.from_dict(columns)


def trainer(folder, method, dataset):
    return DistillationTrainer(method, arguments(folder), train_dataset=dataset, eval_dataset=dataset)


def test_index_reaches_the_method_and_no_model(tmp_path):
    method = Remembering(Bag(1))
    run = trainer(tmp_path, method, data(index=True))
    run.train()
    assert method.seen == list(range(100, 116))
    assert "eval_loss" in run.evaluate()


def test_index_is_asked_for_when_it_is_needed(tmp_path):
    with pytest.raises(RequestError, match="remembering needs the index of every sample") as caught:
        trainer(tmp_path, Remembering(Bag(1)), data(index=False)).train()
    assert "add_column" in str(caught.value)


def test_index_is_not_asked_for_otherwise(tmp_path):
    weights = []
    for index in (True, False):
        run = trainer(tmp_path, KD(Bag(1), Bag(2)), data(index=index))
        run.train()
        weights.append(run.method.student.head.weight)
    assert torch.equal(*weights)
