"""Small networks that show what taps must cope with, and helpers around them."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from limbeck.taps import Taps
from limbeck.task import Classification

TASK = Classification(3)


def batch(*shape: int) -> dict[str, Tensor]:
    return {"inputs": torch.randn(*(shape or (4, 3, 8, 8)))}


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.relu(self.norm(self.conv(x)))))


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1)
        self.layer1 = Block(width, width)
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2), nn.Dropout(0.5))
        self.fc = nn.Linear(2 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


def taps(model: nn.Module, *paths: str, trainable: bool = False, **options) -> Taps:
    return Taps(model, paths, task=TASK, trainable=trainable, **options)


def num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Restless(nn.Module):
    """Changes everything that a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("lazy", None)
        self.register_buffer("replaced", torch.tensor([float("nan")]))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.data.add_(1)
        self.lazy = x.mean()
        self.replaced = self.replaced + 1
        random.random()
        np.random.rand()
        return self.drop(self.norm(self.fc(x)))


def everything(net: nn.Module) -> list[object]:
    """All bits of a network and of the random states."""
    tensors = {name: value.numpy().tobytes() for name, value in net.state_dict().items()}
    states = [random.getstate(), torch.get_rng_state().numpy().tobytes()]
    return [tensors, *states, *(str(part) for part in np.random.get_state())]


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.a = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.b = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh())
        self.head = nn.Linear(4, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.a, x, use_reentrant=self.reentrant)
        return self.head(checkpoint(self.b, x, use_reentrant=self.reentrant))


# torch says so wherever a reentrant part runs without gradient
REENTRANT = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")


def gradients(net: nn.Module, tapped: Taps, data: dict[str, Tensor], paths: list[str]) -> list[Tensor]:
    net.zero_grad()
    torch.manual_seed(1)
    record = tapped(data)
    (record.output.sum() + sum(record[path].square().sum() for path in paths)).backward()
    assert tapped._state.values == {}
    assert tapped._state.calls == {}
    return [
        record.output.detach(),
        *(record[path].detach() for path in paths),
        *(p.grad for p in net.parameters()),
    ]


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.other = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.relu(self.conv(x)))
        return self.fc(x.mean((2, 3)))


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x)[0]
        return self.head(self.block.forward(x).mean(1))


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Parts(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        y, z = self.fc(x), x * 2
        return {
            "tuple": (y, (z, y + 1)),
            "dict": {"hidden": y, "weights": z},
            "named": Pair(y, z),
            "none first": (None, z),
            "text": "no tensor",
            "texts": {"a": "x", "b": None},
        }[self.kind]


class WithParts(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.block = Parts(kind)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        self.block(x)
        return self.head(x)
