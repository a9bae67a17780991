"""M7, openai/CLIP#239: one ReLU object used at several places, of which a hook keeps the last."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.taps import Taps, layers
from limbeck.task import Classification

TASK = Classification(2)
BATCH = {"inputs": torch.randn(3, 4)}


class Shares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.relu = nn.Linear(4, 8), nn.Linear(8, 2), nn.ReLU()

    def forward(self, x):
        return self.relu(self.fc2(self.relu(self.fc1(x))))


def test_the_call_must_be_named():
    network = Shares()
    for again in (
        lambda taps: taps.dry(BATCH),
        lambda taps: taps(BATCH),
        lambda taps: taps(BATCH, output=False),
    ):
        with pytest.raises(RequestError, match="called 2 times in one forward") as caught:
            again(Taps(network, ["relu"], task=TASK, trainable=False))
        assert caught.value.near == ("relu#1", "relu#2")
    shapes = Taps(network, ["relu#1", "relu#2", "relu.input#2"], task=TASK, trainable=True).dry(BATCH)
    assert shapes == {"relu#1": (3, 8), "relu#2": (3, 2), "relu.input#2": (3, 2)}


def test_also_under_two_names():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    network.append(network[1])
    with pytest.raises(RequestError, match="called 2 times"):
        Taps(network, ["3"], task=TASK, trainable=False).dry(BATCH)
    assert Taps(network, ["3#2"], task=TASK, trainable=False).dry(BATCH) == {"3#2": (3, 2)}


def test_listed_with_its_number_of_calls():
    rows = {row.path: row for row in layers(Shares(), BATCH, TASK)}
    assert rows["relu"].calls == 2
    assert rows["relu"].note == "called 2 times: name relu#1..#2, shapes (3, 8), (3, 2)"
    assert rows["fc1"].calls == 1
