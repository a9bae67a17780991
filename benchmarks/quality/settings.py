"""What is compared with what: the tables that all recipes of a benchmark share, and each method's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.recipe import Recipe

Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Benchmark:
    """One comparison.

    Args:
        name: of its folder and its result file; `title`: for people.
        shared: tables of every recipe: data, networks, budget.
        methods: the table `[method]` by line of the leaderboard; what it does not set is the paper's default.
        seeds: how many.
    """

    name: str
    title: str
    shared: Tables
    methods: Tables
    seeds: int

    @property
    def given_teacher(self) -> bool:
        """Whether the teacher's weights come from a file; else it is trained first."""
        return "weights" not in self.shared["teacher"]

    def recipes(self, root: Path | None = None, weights: Path | None = None) -> list[Recipe]:
        """One a line of the leaderboard.

        Args:
            root: folder of the data.
            weights: of the teacher, where they are given.
        """
        shared = {name: dict(table) for name, table in self.shared.items()}
        if root is not None:
            shared["data"]["root"] = str(root)
        if weights is not None:
            shared["teacher"]["weights"] = str(weights)
        return [Recipe(name=line, method=dict(own), **shared) for line, own in self.methods.items()]


_KD = {"name": "kd"}
#: Frozen: the teacher of all other lines; one trained along would be another, and see the students' labels
#: alone. Simultaneous: the paper does not say, and it asks the teacher once a step.
_PEERS = {"name": "peer_mutual_kd", "teacher_mode": "frozen", "order": "simultaneous"}
_SSKD = {"name": "sskd"}
#: Beside sskd, to see why it lies where it does: the same terms, with the labels, in one phase.
_JOINT = {"name": "sskd", "variant": "joint"}

_FASHION_METHODS: Tables = {
    "kd": _KD,
    # beta: the hard term starts at 2.3, the semantic term at 1.05 on these networks; the paper's 400, for the
    # maps of its CIFAR networks, makes the loss diverge within an epoch here. Taps: the last two of three
    # stages; the projections of these four pairs take twelve times a plain step already.
    "semckd": {
        "name": "semckd",
        "beta": 2.0,
        "taps": {"student": ["layer2", "layer3"], "teacher": ["layer2", "layer3"]},
    },
    "sskd": _SSKD,
    "sskd_joint": _JOINT,
    "peer_mutual_kd": _PEERS,
}

_FASHION: Tables = {
    "data": {"source": "fashion-mnist", "limit": 10_000},
    "teacher": {"model": "resnet-small", "weights": "train"},
    "student": {"model": "cnn-tiny"},
    "train": {"epochs": 10},
}

FASHION = Benchmark("fashion-mnist", "Fashion-MNIST", _FASHION, _FASHION_METHODS, seeds=3)

FEW = Benchmark(
    "fashion-mnist-few",
    "Fashion-MNIST, 1,000 labels",
    {**_FASHION, "data": {**_FASHION["data"], "labels": 1_000}},
    {"plain_mixed": {"name": "benchmarks.quality.mixed:MixedPlain"}, **_FASHION_METHODS},
    seeds=3,
)

CIFAR = Benchmark(
    "cifar100",
    "CIFAR-100",
    {
        "data": {
            "source": "benchmarks.quality.cifar_sheets:with_validation",
            "limit": 10_000,
            "augment": ["crop", "flip"],
        },
        "teacher": {"model": "resnet56", "normalize": "cifar100"},
        "student": {"model": "resnet20", "normalize": "cifar100"},
        # The batch of the papers and less than a hundredth of their steps.
        "train": {"epochs": 8, "batch_size": 64},
    },
    # beta: the term starts at 4.3 here, as large as that of the labels; with the paper's 400 the loss is not
    # finite after seven steps.
    {"kd": _KD, "semckd": {"name": "semckd", "beta": 1.0}, "sskd": _SSKD, "peer_mutual_kd": _PEERS},
    seeds=1,
)

BENCHMARKS: Mapping[str, Benchmark] = {one.name: one for one in (FASHION, FEW, CIFAR)}
