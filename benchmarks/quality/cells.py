"""The trainings of a comparison: its data, its teacher, and a student by a method, a cell of the table."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.quality.settings import COHORT, Benchmark, Row
from limbeck._run.machine import facts
from limbeck.data.dataset import Dataset
from limbeck.data.selection import keep_labels
from limbeck.data.sources import load_source
from limbeck.engine import Fit, evaluate, fit
from limbeck.method import Method
from limbeck.methods import resolve
from limbeck.methods.plain import Plain
from limbeck.models import Preprocessed, pixel_statistics, prepare
from limbeck.task import Task

#: Offsets of the seeds of a cell: students from 0, then what the method draws; a seed's cells lie 1000 apart.
_SEEDS, _METHOD, _TEACHER = 1000, 500, 900
_DIGITS = 6


@dataclass(frozen=True)
class Data:
    """The data of a comparison.

    Args:
        train: with every label; `validation`: the rest of the training part; `choosing`: what chooses the
            epoch, a part of it or all; `test`: read once, at the end of a cell.
        statistics: mean and deviation of the training pictures by channel.
        fingerprint: of all of it.
    """

    train: Dataset
    choosing: Dataset
    validation: Dataset
    test: Dataset
    task: Task
    num_classes: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    fingerprint: str


@dataclass(frozen=True)
class Cell:
    """One student: the number of labels it sees (None: all), the line of the table, the seed."""

    labels: int | None
    row: Row
    seed: int


def read(benchmark: Benchmark, root: Path | None) -> Data:
    """Reads the data and cuts the training part, the same on every machine and for every seed."""
    source = load_source(benchmark.source, root=root, validation=0.0, test=0.0, augment=benchmark.augment)
    assert source.test is not None, f"{benchmark.source} has no test part"
    assert source.classes is not None, f"{benchmark.source} has no classes"
    chosen = first_of_each_class(source.train.targets(), benchmark.train)
    left = torch.ones(len(source.train), dtype=torch.bool)
    left[chosen] = False
    validation = source.train.subset(left.nonzero().squeeze(1))
    choosing = validation
    if benchmark.choosing is not None:
        choosing = validation.subset(first_of_each_class(validation.targets(), benchmark.choosing))
    train = source.train.subset(chosen)
    batches = (train.batch(part)["inputs"] for part in torch.split(torch.arange(len(train)), 1000))
    return Data(
        train,
        choosing,
        validation,
        source.test,
        source.task,
        len(source.classes),
        pixel_statistics(batches),
        source.fingerprint(),
    )


def first_of_each_class(targets: Tensor, number: int) -> Tensor:
    """Positions of the first samples of every class, equally many of each; sorted int64 [number].

    >>> first_of_each_class(torch.tensor([0, 0, 1, 0, 1]), 4).tolist()
    [0, 1, 2, 4]
    """
    classes = torch.unique(targets)
    each, uneven = divmod(number, len(classes))
    if uneven:
        raise ValueError(f"{number} samples of {len(classes)} classes; needed a multiple")
    found = [(targets == one).nonzero().squeeze(1)[:each] for one in classes]
    if min(len(positions) for positions in found) < each:
        raise ValueError(f"a class has fewer than {each} samples")
    return torch.cat(found).sort().values


def network(
    benchmark: Benchmark, data: Data, spec: str, seed: int, weights: Path | None = None
) -> Preprocessed:
    """A network with the random weights of a seed, or with those of a file."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = prepare(
            spec,
            num_classes=data.num_classes,
            inputs=data.train.batch([0])["inputs"],
            normalize=benchmark.normalize,
            statistics=data.statistics,
            weights=weights,
        )
    return built.network


def settings_of(benchmark: Benchmark, cell: Cell) -> dict[str, Any]:
    """The settings of a cell's method that differ from its defaults, as plain values."""
    return dict(benchmark.methods.get(cell.row.name, {}))


def key(benchmark: Benchmark, data: Data, cell: Cell) -> str:
    """Of everything that a cell's scores depend on, but for the teacher's weights and the machine."""
    parts = [
        benchmark.student,
        benchmark.normalize,
        list(benchmark.augment),
        benchmark.budget.model_dump_json(),
        benchmark.choosing,
        data.fingerprint,
        len(data.train),
        cell.labels,
        cell.row.method,
        sorted(settings_of(benchmark, cell).items()),
        cell.seed,
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def needs_teacher(cell: Cell) -> bool:
    """Whether the method of a cell asks a teacher."""
    return resolve(cell.row.method).card.teacher != "none"


def build(benchmark: Benchmark, data: Data, cell: Cell, teacher: nn.Module | None) -> Method:
    """The method of a cell; every method of a seed starts from the same student weights."""
    found = resolve(cell.row.method)
    first = cell.seed * _SEEDS
    students = [network(benchmark, data, benchmark.student, first + number) for number in range(COHORT)]
    given: dict[str, Any] = {"task": data.task, **settings_of(benchmark, cell)}
    given |= {"students": students} if found.card.cohort else {"student": students[0]}
    if found.card.teacher != "none":
        given["teacher"] = teacher
    if found.card.taps:
        given["example"] = data.train.batch(torch.arange(benchmark.budget.batch_size))
    with torch.random.fork_rng():
        torch.manual_seed(first + _METHOD)
        return found(**given)


def train(benchmark: Benchmark, data: Data, cell: Cell, teacher: nn.Module | None) -> dict[str, Any]:
    """Trains and scores a cell; what is stored of it."""
    wall, busy = time.perf_counter(), time.process_time()
    method = build(benchmark, data, cell, teacher)
    samples = keep_labels(data.train, cell.labels, cell.seed)
    made = fit(
        method,
        samples,
        data.choosing,
        benchmark.budget,
        seed=cell.seed,
        views="fresh" if samples.augmented else 0,
    )
    scores = {which: _scores(made.load(which).deployable(), data) for which in ("last", "chosen")}
    return {
        "labels": cell.labels,
        "method": cell.row.name,
        "class": cell.row.method,
        "seed": cell.seed,
        "key": key(benchmark, data, cell),
        "settings": settings_of(benchmark, cell),
        "budget": benchmark.budget.model_dump(),
        "parameters": count(made.method.deployable()),
        "chosen_epoch": made.chosen_epoch,
        "scores": scores,
        "epochs": _epochs(made, data.task.score_name),
        **_spent(wall, busy),
    }


def train_teacher(benchmark: Benchmark, data: Data, file: Path) -> dict[str, Any]:
    """Trains the teacher with every label, writes its last weights and gives what is stored of it."""
    wall, busy = time.perf_counter(), time.process_time()
    assert benchmark.teacher_budget is not None
    learner = network(benchmark, data, benchmark.teacher, _TEACHER)
    made = fit(
        Plain(learner, task=data.task),
        data.train,
        data.choosing,
        benchmark.teacher_budget,
        views="fresh" if data.train.augmented else 0,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in learner.body.state_dict().items()}, file)
    return {
        "key": teacher_key(benchmark, data),
        "digest": digest(file),
        "budget": benchmark.teacher_budget.model_dump(),
        "parameters": count(learner),
        "scores": _scores(learner, data),
        "epochs": _epochs(made, data.task.score_name),
        **_spent(wall, busy),
    }


def given_teacher(benchmark: Benchmark, data: Data, file: Path) -> dict[str, Any]:
    """What is stored of a teacher whose weights were given."""
    wall, busy = time.perf_counter(), time.process_time()
    learned = network(benchmark, data, benchmark.teacher, _TEACHER, file)
    return {
        "key": teacher_key(benchmark, data),
        "digest": digest(file),
        "budget": None,
        "parameters": count(learned),
        "scores": _scores(learned, data),
        "epochs": [],
        **_spent(wall, busy),
    }


def teacher_key(benchmark: Benchmark, data: Data) -> str:
    """Of everything that a teacher's weights depend on, but for the machine."""
    budget = benchmark.teacher_budget and benchmark.teacher_budget.model_dump_json()
    parts = [benchmark.teacher, benchmark.normalize, list(benchmark.augment), budget, data.fingerprint]
    return hashlib.sha256(repr([*parts, len(data.train)]).encode()).hexdigest()[:16]


def digest(file: Path) -> str:
    """Of the contents of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def count(module: nn.Module) -> int:
    """Its parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _scores(module: nn.Module, data: Data) -> dict[str, float]:
    """The score on what chooses, on all of validation and on the test part."""
    parts = {"choosing": data.choosing, "validation": data.validation, "test": data.test}
    name = data.task.score_name
    return {part: round(evaluate(module, found, data.task)[name], _DIGITS) for part, found in parts.items()}


def _epochs(made: Fit, score_name: str) -> list[dict[str, Any]]:
    """The course of a training: mean unweighted terms and the scores by network."""
    return [
        {
            "stage": entry["stage_name"],
            "epoch": entry["epoch"],
            "terms": {name: round(value, _DIGITS) for name, value in entry["terms"].items()},
            "scores": {name: round(found[score_name], _DIGITS) for name, found in entry["scores"].items()},
        }
        for entry in made.history
    ]


def _spent(wall: float, busy: float) -> Mapping[str, Any]:
    """Seconds by the clock and of the processor since two starts, and where they were spent."""
    machine = facts()
    repository = machine.pop("git")
    return {
        "seconds": round(time.perf_counter() - wall, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
        "threads": torch.get_num_threads(),
        "machine": {name: machine[name] for name in ("system", "processor", "cores", "gpus")},
        "versions": machine["versions"],
        "commit": None if repository is None else repository["commit"],
    }
