from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from limbeck.data.dataset import ArrayDataset
from limbeck.data.loader import Loader
from limbeck.engine import Training, fit
from limbeck.integrations.huggingface import DistillationTrainer
from limbeck.integrations.lightning import LightningMethod
from limbeck.methods import KD
from tests.integrations.loops import (
    LIGHTNING_WARNINGS,
    arguments,
    constant,
    lightning_trainer,
    perceptron,
    rows,
)

pytestmark = LIGHTNING_WARNINGS

STEPS, SIZE = 20, 8
OPTIONS = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "AdamW": {"weight_decay": 0.01},
}


def method():
    return KD(perceptron(1), perceptron(2, 16), temperature=3.0)


def optimizer_of(parameters, name):
    return getattr(torch.optim, name)(parameters, lr=0.03, **OPTIONS[name])


def batches():
    """Ten batches an epoch over two epochs, in the order of the engine."""
    samples = rows(SIZE * STEPS // 2)
    data = ArrayDataset(
        torch.stack([row["inputs"] for row in samples]), torch.stack([row["targets"] for row in samples])
    )
    ordered = [b for epoch in (1, 2) for (b,) in Loader(data, SIZE, seed=5, stage=0, epoch=epoch)]
    return data, ordered


def bare(ordered, name, folder):
    trained = method()
    losses, optimizer = [], optimizer_of(trained.parameters(), name)
    for batch in ordered:
        loss = trained(batch).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, trained


def recorded(train):
    """Runs a loop of someone else, and notes the total of every call of the method."""
    losses, trained = [], method()
    trained.register_forward_hook(lambda module, inputs, output: losses.append(output.total.item()))
    train(trained)
    return losses, trained


def engine(ordered, name, folder):
    settings = Training(
        epochs=2,
        batch_size=SIZE,
        optimizer=name,
        learning_rate=0.03,
        optimizer_options=OPTIONS[name],
        schedule="none",
    )
    return recorded(lambda trained: fit(trained, batches()[0], settings=settings, seed=5))


def samples_of(ordered):
    return [{key: value[i] for key, value in batch.items()} for batch in ordered for i in range(SIZE)]


def huggingface(ordered, name, folder):
    def train(trained):
        optimizers = constant(optimizer_of(trained.parameters(), name))
        DistillationTrainer(
            trained, arguments(folder), train_dataset=samples_of(ordered), optimizers=optimizers
        ).train()

    return recorded(train)


def lightning(ordered, name, folder):
    def train(trained):
        module = LightningMethod(trained, lambda groups: optimizer_of(groups, name))
        lightning_trainer(folder).fit(module, DataLoader(samples_of(ordered), batch_size=SIZE))

    return recorded(train)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("loop", [engine, huggingface, lightning], ids=lambda loop: loop.__name__)
def test_losses_and_weights_equal_those_of_a_bare_loop_bit_for_bit(loop, name, tmp_path):
    _, ordered = batches()
    expected, own = bare(ordered, name, tmp_path)
    losses, theirs = loop(ordered, name, tmp_path)
    assert len(expected) == STEPS
    assert losses == expected
    for one, other in zip(own.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)
