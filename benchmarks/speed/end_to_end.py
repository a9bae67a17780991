"""Wall time of a distillation to a given accuracy: limbeck's first and later runs, and what people use.

    python -m benchmarks.speed.end_to_end --data DIR --teacher-weights FILE.safetensors

A ResNet-20 learns CIFAR-100 from a trained ResNet-56, on the first pictures of the training part (every
prefix is class-balanced), with crop and flip, batch 64. The same networks, initial weights, order of samples,
loss, optimizer, schedule and epochs in all rows, one after the other in a process:

    usual_live      the teacher in full at each step, float32, a new view every epoch: what everyone does
    torchdistill    the same with torchdistill from PyPI
    limbeck_first   limbeck as it decides by itself; the cache is empty, and the time in which the teacher
                    fills it counts
    limbeck_later   the same again: the cache of the first run is read

The clock stands while a student is scored on test pictures, after each epoch. `accuracy_to_reach` is what the
worst row ends with; the time to it is taken at the end of the first epoch that has it. `pace_seconds`: a step
of the plain student just before a row, so that one sees whether the machine was equally free.

Results go into the JSON file after each row; stored rows of the same settings are not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.quality import cifar_sheets
from benchmarks.quality.defaults import network
from benchmarks.speed import loops, rival
from benchmarks.speed.store import Store
from benchmarks.speed.turns import Told
from limbeck import CachedTeacher, evaluate
from limbeck._run.machine import facts
from limbeck.data.dataset import ArrayDataset, Dataset
from limbeck.data.views import Views

RESULT = rival.ROOT / "benchmarks" / "results" / "end_to_end.json"
CACHES = rival.ROOT / "runs" / "end_to_end"
ROWS = ("usual_live", "torchdistill", "limbeck_first", "limbeck_later")
RATE = 0.05
_PACE = 7  # steps, of which the first two warm up


@dataclass(frozen=True)
class Material:
    """What all rows of a seed share.

    Args:
        student: with its initial weights.
        teacher: trained.
        course: training data and settings.
        test: pictures to score on.
        folder: of the cache.
    """

    student: nn.Module
    teacher: nn.Module
    course: loops.Course
    test: Dataset
    folder: Path

    @property
    def views(self) -> int:
        """How many views are stored: the rule of a recipe, a quarter of the epochs and at least four."""
        return min(self.course.epochs, max(4, -(-self.course.epochs // 4)))


class Curve(Told):
    """Accuracy over time; the clock stands while it is measured.

    Args:
        test: pictures to score on.
    """

    def __init__(self, test: Dataset) -> None:
        self.points: list[tuple[float, float]] = []
        self._test, self._stood, self._begun = test, 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Since the beginning, without what was spent on scoring."""
        return time.perf_counter() - self._begun - self._stood

    def epoch(self, student: nn.Module) -> None:
        """Scores a student at the end of an epoch."""
        now = self.seconds()
        accuracy = evaluate(student, self._test)["accuracy"]
        self.points.append((round(now, 3), round(accuracy, 4)))
        self._stood += self.seconds() - now


def run(row: str, material: Material) -> dict[str, Any]:
    """Trains one row; its curve, and for limbeck what it decided and how long the teacher wrote."""
    student, teacher, course = material.student, material.teacher, material.course
    paced = pace(student, course)
    if row == "limbeck_first" and material.folder.exists():
        shutil.rmtree(material.folder)
    if row == "limbeck_later":  # there already, unless somebody deleted it
        cache(material)
    found: dict[str, Any] = {}
    curve = Curve(material.test)
    if row == "usual_live":
        loops.by_hand(student, teacher, course)(curve)
    elif row == "torchdistill":
        rival.with_torchdistill(student, teacher, course)(curve)
    else:
        found["answers_written"] = cache(material)
        found["writing_seconds"] = round(curve.seconds(), 3)
        machine, why = loops.by_rule(student, course)
        found |= {
            "views": material.views,
            "precision": machine.precision,
            "layout": machine.layout,
            "why": why,
        }
        views = material.views
        loops.with_limbeck(student, teacher, course, material.folder, machine, views=views)(curve)
    found |= {"seconds": curve.points[-1][0], "accuracy": curve.points[-1][1], "curve": curve.points}
    return found | {"pace_seconds": paced}


def cache(material: Material) -> int:
    """Fills the cache as a run does before its first step; gives how many answers were missing."""
    cached = CachedTeacher(material.teacher, material.folder, material.course.data)
    return cached.fill(range(1, material.views + 1))


def pace(student: nn.Module, course: loops.Course) -> float:
    """Median seconds of a step of the plain student."""

    class Few(Told):
        def __init__(self) -> None:
            self.times = [time.perf_counter()]

        def step(self, loss: float) -> None:
            self.times.append(time.perf_counter())
            if len(self.times) > _PACE:
                raise _Enough

    few = Few()
    with contextlib.suppress(_Enough):
        loops.by_hand(student, None, course)(few)
    taken = [after - before for before, after in zip(few.times[:-1], few.times[1:], strict=True)]
    return round(statistics.median(taken[2:] or taken), 5)


class _Enough(Exception):
    """Sufficiently many steps were taken."""


def summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds to what the worst row of a seed ends with, by row; medians over the seeds."""
    seeds = sorted({cell["seed"] for cell in cells})
    by_seed = {seed: {c["row"]: c for c in cells if c["seed"] == seed} for seed in seeds}
    targets = {seed: min(cell["accuracy"] for cell in rows.values()) for seed, rows in by_seed.items()}
    found = {}
    for row in [row for row in ROWS if any(row in rows for rows in by_seed.values())]:
        pairs = [(rows[row], targets[seed]) for seed, rows in by_seed.items() if row in rows]
        found[row] = {
            "seconds": round(statistics.median(cell["seconds"] for cell, _ in pairs), 2),
            "seconds_to_accuracy": round(statistics.median(reached(c["curve"], t) for c, t in pairs), 2),
            "accuracy": round(statistics.mean(cell["accuracy"] for cell, _ in pairs), 4),
            "seeds": len(pairs),
        }
    result: dict[str, Any] = {"accuracy_to_reach": targets, "rows": found}
    if "usual_live" in found:
        usual = found["usual_live"]
        for measure in ("seconds", "seconds_to_accuracy"):
            ratios = {row: round(usual[measure] / each[measure], 2) for row, each in found.items()}
            result[f"times_faster_in_{measure}"] = ratios
    return result


def reached(curve: Sequence[Sequence[float]], accuracy: float) -> float:
    """Seconds at the end of the first epoch that has an accuracy; infinite where none has."""
    return next((seconds for seconds, found in curve if found >= accuracy), math.inf)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    given = _parsed(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    version = rival.version(given.torchdistill)
    rows = [row for row in given.rows if row != "torchdistill" or version is not None]
    if "torchdistill" in given.rows and version is None:
        print(f"without torchdistill, which is not there; to have its row: {rival.HOW}", file=sys.stderr)
    settings, about = _settings(given), _about(version)
    store = Store(given.json, about)
    store.keep([cell["key"] for cell in store.cells if cell["key"].endswith(str(settings))])
    for seed in range(given.seeds):
        keys = {row: f"{row}, seed {seed}, {settings}" for row in rows}
        todo = [row for row in rows if not store.has(keys[row])]
        material = _material(given, seed) if todo else None
        for row in todo:
            assert material is not None
            print(time.strftime("%H:%M:%S"), row, f"seed {seed}", file=sys.stderr, flush=True)
            store.add({"key": keys[row], "row": row, "seed": seed, **run(row, material)})
    Store(given.json, {"settings": settings, **summary(store.cells), **about}).write()
    print(given.json.read_text("utf-8"), end="")
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.end_to_end")
    parser.add_argument("--data", type=Path, help="folder that holds cifar100/; default: LIMBECK_DATA")
    parser.add_argument("--teacher-weights", type=Path, required=True, help="of a ResNet-56 for CIFAR-100")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--test-samples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1, help="initial weights of the student")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--threads", type=int, help="default: all that torch takes")
    parser.add_argument("--torchdistill", type=Path, default=rival.FOLDER, help="folder it is installed in")
    parser.add_argument("--caches", type=Path, default=CACHES, help="folder for limbeck's caches")
    parser.add_argument("--json", type=Path, default=RESULT, help="where results are kept")
    return parser.parse_args(arguments)


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    """What a stored row depends on."""
    return {
        "samples": given.samples,
        "test_samples": given.test_samples,
        "epochs": given.epochs,
        "batch": given.batch,
        "learning_rate": RATE,
        "threads": torch.get_num_threads(),
        "pair": "ResNet-56 -> ResNet-20",
        "teacher": hashlib.sha256(given.teacher_weights.read_bytes()).hexdigest()[:12],
    }


def _about(version: str | None) -> dict[str, Any]:
    """Machine and versions of a result."""
    machine = facts()
    versions = machine.pop("versions") | {"torchdistill": version}
    command = "python -m benchmarks.speed.end_to_end --data DIR --teacher-weights FILE"
    return {"machine": machine, "versions": versions, "command": command, "torchdistill": rival.HOW}


def _material(given: argparse.Namespace, seed: int) -> Material:
    data = cifar_sheets.load(given.data)
    sizes = {"train": given.samples, "test": given.test_samples}
    sets = {name: ArrayDataset(*(part[:number] for part in data[name])) for name, number in sizes.items()}
    train = sets["train"].augment(Views(0, ["crop", "flip"]))
    course = loops.Course(train, given.epochs, given.batch, RATE, augmented=True)
    teacher = network("resnet56", given.teacher_weights)
    torch.manual_seed(seed)
    folder = given.caches / f"{given.samples}-{given.teacher_weights.stem}"
    return Material(network("resnet20"), teacher, course, sets["test"], folder)


if __name__ == "__main__":
    sys.exit(main())
