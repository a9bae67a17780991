"""What bfloat16 and channels_last give, network by network: the figures behind the rule of limbeck.

    python -m benchmarks.speed.precision --json benchmarks/results/precision.json

Each network takes a training step and a forward in eval in four ways in turn: float32, channels_last,
bfloat16 autocast, and both together. Medians after a warm-up, relative to float32. `operations` is what the
rule looks at: floating-point operations of a forward for each number that the layers write.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed.turns import ratios
from limbeck._fast.gain import intensity
from limbeck._run.machine import facts
from limbeck.models.cifar import cifar_resnet
from limbeck.models.registry import prepare
from limbeck.task import Classification

#: The ways: channels_last, bfloat16.
WAYS = {
    "fp32": (False, False),
    "channels_last": (True, False),
    "bf16": (False, True),
    "bf16_channels_last": (True, True),
}


@dataclass(frozen=True)
class Case:
    """A network and what it is shown.

    Args:
        build: the network; random weights.
        shape: of a batch.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def _built_in(name: str) -> Callable[[], nn.Module]:
    return lambda: prepare(name, num_classes=10, inputs=torch.rand(2, 1, 28, 28)).network


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        network: nn.Module = getattr(torchvision.models, name)(num_classes=100)
        return network

    return build


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(name, num_classes=100, **options)
        return network

    return build


def _perceptron() -> nn.Module:
    hidden = [nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(1024, 10))


CASES = {
    "MobileNetV2, 32x32": Case(_torchvision("mobilenet_v2"), (64, 3, 32, 32)),
    "ShuffleNetV2, 32x32": Case(_torchvision("shufflenet_v2_x1_0"), (64, 3, 32, 32)),
    "cnn-tiny, 28x28": Case(_built_in("cnn-tiny"), (128, 1, 28, 28)),
    "ViT-Ti/8, 64x64": Case(_timm("vit_tiny_patch16_224", img_size=64, patch_size=8), (64, 3, 64, 64)),
    "ResNet-20, 32x32": Case(lambda: cifar_resnet(num_classes=100, depth=20), (64, 3, 32, 32)),
    "Mixer-S/32, 224x224": Case(_timm("mixer_s32_224"), (8, 3, 224, 224)),
    "ResNet-56, 32x32": Case(lambda: cifar_resnet(num_classes=100, depth=56), (64, 3, 32, 32)),
    "resnet-small, 28x28": Case(_built_in("resnet-small"), (64, 1, 28, 28)),
    "ResNet-18, 64x64": Case(_torchvision("resnet18"), (16, 3, 64, 64)),
    "perceptron 784-1024-1024-10": Case(_perceptron, (128, 1, 28, 28)),
}


class _Way:
    """A copy of a network that trains and answers in one way."""

    def __init__(self, network: nn.Module, inputs: Tensor, way: str) -> None:
        channels_last, self.bf16 = WAYS[way]
        form = torch.channels_last if channels_last else torch.contiguous_format
        self.network = copy.deepcopy(network).to(memory_format=form)
        self.inputs = inputs.contiguous(memory_format=form)
        self.targets = torch.arange(len(inputs)) % 10
        self.optimizer = torch.optim.SGD(self.network.parameters(), 1e-3, momentum=0.9)

    def _answer(self) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.network(self.inputs)
        return logits

    def train(self) -> None:
        self.network.train()
        F.cross_entropy(self._answer().float(), self.targets).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def infer(self) -> None:
        self.network.eval()
        with torch.no_grad():
            self._answer()


def measure(case: Case, seconds: float, rounds: int) -> dict[str, Any]:
    """Times a network in all ways.

    Args:
        case: the network.
        seconds: so long its training steps are timed, and so long its forwards.
        rounds: at least so many of each.
    """
    torch.manual_seed(0)
    network, inputs = case.build(), torch.rand(case.shape)
    found: dict[str, Any] = {
        "batch": case.shape[0],
        "operations": round(intensity(network.eval(), {"inputs": inputs}, Classification()), 1),
    }
    ways = {way: _Way(network, inputs, way) for way in WAYS}
    for what in ("train", "infer"):
        calls = {way: one.train if what == "train" else one.infer for way, one in ways.items()}
        found[what] = ratios(_in_turn(calls, seconds, rounds), "fp32")
    return found


def _in_turn(calls: dict[str, Callable[[], None]], seconds: float, rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {way: [] for way in calls}
    for call in calls.values():
        call()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(taken["fp32"]) < rounds:
        for way, call in calls.items():
            since = time.perf_counter()
            call()
            taken[way].append(time.perf_counter() - since)
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.precision")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="that a network is timed, each of train, infer"
    )
    parser.add_argument("--rounds", type=int, default=5, help="at least")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), help="networks")
    parser.add_argument("--json", type=Path, help="where the result goes")
    given = parser.parse_args(arguments)
    networks = {}
    for name in given.only or CASES:
        networks[name] = measure(CASES[name], given.seconds, given.rounds)
        ratio = networks[name]["train"]["ratio"]
        print(
            f"{name}: {networks[name]['operations']} operations, train {ratio}", file=sys.stderr, flush=True
        )
    machine = facts()
    found = {
        "command": "python -m benchmarks.speed.precision --json FILE",
        "settings": {"seconds": given.seconds, "threads": torch.get_num_threads()},
        "networks": networks,
        "versions": machine.pop("versions"),
        "machine": machine,
    }
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
