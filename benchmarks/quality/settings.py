"""What is compared with what: data, networks, the one budget, and the settings of each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.engine.settings import Training
from limbeck.methods import METHODS, resolve

#: Students of a method that trains several; the one with the best validation score is reported.
COHORT = 2


@dataclass(frozen=True)
class Benchmark:
    """One comparison.

    Args:
        name: of the comparison and of its result file; `title`: for people.
        source: of the data, as `limbeck.data.sources.load_source` takes it.
        train: training pictures, the first of each class in the order of the set; the rest is validation.
        choosing: validation pictures that choose the epoch, the first of each class; None: all of them.
        labels: the settings of how many training labels the students see; None: all.
        teacher, student: networks by name.
        normalize: statistics of both networks by name; "data": those of the training pictures.
        teacher_budget: how the teacher is trained; None: its weights come from a file.
        budget: how every student is trained, whatever the method.
        methods: settings by method that differ from the defaults, which are the papers'.
        augment: augmentations, new ones every epoch.
    """

    name: str
    title: str
    source: str
    train: int
    choosing: int | None
    labels: Sequence[int | None]
    teacher: str
    student: str
    normalize: str
    teacher_budget: Training | None
    budget: Training
    methods: Mapping[str, Mapping[str, Any]]
    augment: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: in the table; `method`: as `limbeck.methods.resolve` takes it.
        few: only where not all labels are seen.
    """

    name: str
    method: str
    few: bool = False


#: Settings of every comparison that say which form of a method is run.
_FORMS: Mapping[str, Mapping[str, Any]] = {
    # Frozen: the teacher of all other rows, trained with all labels; one trained along would see the labels
    # of the students alone. Simultaneous: the paper does not say, and it asks the teacher once a step.
    "peer_mutual_kd": {"teacher_mode": "frozen", "order": "simultaneous"},
    # Added after the other lines were measured, to see why sskd lies where it does: the same terms, with the
    # labels, in one phase.
    "sskd_joint": {"variant": "joint"},
}

FASHION = Benchmark(
    name="fashion-mnist",
    title="Fashion-MNIST",
    source="fashion-mnist",
    train=10_000,
    # Scoring all 50,000 costs more than an epoch of training; they are scored once, at the end.
    choosing=5_000,
    labels=(None, 1_000),
    teacher="resnet-small",
    student="cnn-tiny",
    normalize="data",
    teacher_budget=Training(epochs=10),
    budget=Training(epochs=10),
    methods={
        **_FORMS,
        # beta: the hard term starts at 2.3, the semantic term at 1.05 on these networks; the paper's 400, for
        # the maps of its CIFAR networks, makes the loss diverge within an epoch here. Taps: the last two of
        # three stages, for the projections of all nine pairs take twelve times a plain step.
        "semckd": {
            "beta": 2.0,
            "taps": {"student": ["layer2", "layer3"], "teacher": ["layer2", "layer3"]},
        },
        # sskd: nothing is set. Ten epochs over four phases are 2, 2, 2 and, for the head, 4.
    },
)

CIFAR = Benchmark(
    name="cifar100-sheets",
    title="CIFAR-100",
    source="benchmarks.quality.cifar_sheets:load",
    train=45_000,  # those that the trained teacher has seen
    choosing=None,
    labels=(None,),
    teacher="resnet56",
    student="resnet20",
    normalize="cifar100",
    teacher_budget=None,
    budget=Training(epochs=24, batch_size=64),  # the batch of the papers, a tenth of their epochs
    methods=_FORMS,  # the paper's beta of semckd is for such networks
    augment=("crop", "flip"),
)

BENCHMARKS: Mapping[str, Benchmark] = {one.name: one for one in (FASHION, CIFAR)}


def rows() -> list[Row]:
    """The lines of the tables: the plain students, `kd`, then every other method that is for classes."""
    first = ["plain", "kd"]
    slugs = [*first, *sorted(set(METHODS) - set(first))]
    found = [Row(slug, slug) for slug in slugs if "classes" in resolve(slug).card.tasks]
    mixed = Row("plain_mixed", "benchmarks.quality.mixed:MixedPlain", few=True)
    return [found[0], mixed, *found[1:], Row("sskd_joint", "sskd")]
