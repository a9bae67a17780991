"""Whether what is decided by default costs accuracy: precision, layout and the number of stored views.

    python -m benchmarks.quality.defaults --data-root DIR --teacher-weights FILE.safetensors

A ResNet-20 learns CIFAR-100 from a trained ResNet-56 by kd, on the first pictures of the training part (every
prefix is class-balanced), with crop and flip; test accuracy of the last epoch, mean over seeds. Lines:

    usual     float32, contiguous, a new view every epoch, live float32 teacher: what everyone does
    views     the same with the views of the default (a quarter of the epochs, at least 4), from a cache
    default   views, and bfloat16 and channels_last as limbeck decides them here
    plain     the student without a teacher, otherwise as `usual`; `plain default`: as `default`

Results: benchmarks/results/defaults.json, written after each cell; stored cells are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.quality import cifar_sheets
from limbeck import CachedTeacher, Method, Teacher, evaluate, fit
from limbeck._fast.gain import gains_from_bf16
from limbeck._fast.layout import refuses_channels_last
from limbeck._run.machine import facts
from limbeck.data.dataset import ArrayDataset, Dataset
from limbeck.data.views import Views
from limbeck.engine import Machine, Training
from limbeck.methods import KD, Plain
from limbeck.models.registry import prepare

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "defaults.json"
LINES = ("usual", "views", "default", "plain", "plain default")
_TEST = 5000  # test pictures


def network(model: str, weights: Path | None = None) -> nn.Module:
    """A network for CIFAR-100 by name, which takes pixels from 0 to 1."""
    sizes: dict[str, Any] = {"num_classes": 100, "inputs": torch.rand(2, 3, 32, 32)}
    return prepare(
        model, normalize="cifar100", weights=None if weights is None else str(weights), **sizes
    ).network


def machine(line: str, student: nn.Module, train: Dataset) -> Machine:
    """What a line computes in."""
    if not line.endswith("default"):
        return Machine(device="cpu")
    task, batch = Plain(student).task, train.batch(list(range(64)))
    layout: Literal["contiguous", "channels_last"] = (
        "contiguous" if refuses_channels_last(student, batch, task, training=True) else "channels_last"
    )
    precision: Literal["fp32", "bf16"] = "bf16" if gains_from_bf16(student, batch, task, "cpu")[0] else "fp32"
    return Machine(device="cpu", layout=layout, precision=precision)


def cell(
    line: str, seed: int, train: Dataset, test: Dataset, teacher: nn.Module, epochs: int
) -> dict[str, Any]:
    """Trains and tests one student."""
    torch.manual_seed(seed)
    student = network("resnet20")
    where = machine(line, student, train)
    views: int | Literal["fresh"] = "fresh" if line in ("usual", "plain") else max(4, -(-epochs // 4))
    method: Method
    if line.startswith("plain"):
        method = Plain(student)
    elif views == "fresh":
        method = KD(student, Teacher(teacher))
    else:
        method = KD(
            student, CachedTeacher(teacher, ROOT / "runs" / "defaults" / f"cache-{len(train)}", train)
        )
    settings = Training(epochs=epochs, batch_size=64, learning_rate=0.05)
    done = fit(method, train, settings=settings, seed=seed, views=views, machine=where)
    return {
        "line": line,
        "seed": seed,
        "views": views,
        "precision": where.precision,
        "layout": where.layout,
        "accuracy": evaluate(method.deployable(), test)["accuracy"],
        "seconds": round(done.seconds, 1),
    }


def summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation by line, and the paired difference to `usual` (or `plain`) by seed."""
    found: dict[str, Any] = {}
    by_line = {line: {c["seed"]: c["accuracy"] for c in cells if c["line"] == line} for line in LINES}
    for line, scores in by_line.items():
        if not scores:
            continue
        against = by_line["plain" if line.startswith("plain") else "usual"]
        pairs = [100 * (scores[seed] - against[seed]) for seed in scores if seed in against]
        values = [100 * score for score in scores.values()]
        found[line] = {
            "mean": round(statistics.mean(values), 2),
            "deviation": round(statistics.stdev(values), 2) if len(values) > 1 else None,
            "difference": round(statistics.mean(pairs), 2) if pairs else None,
            "seeds": len(values),
        }
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.defaults")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--teacher-weights", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=LINES, default=LINES)
    parser.add_argument("--json", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    data = cifar_sheets.load(given.data_root)
    parts = {"train": given.samples, "test": _TEST}
    sets = {name: ArrayDataset(*(part[:number] for part in data[name])) for name, number in parts.items()}
    train, test = sets["train"].augment(Views(0, ["crop", "flip"])), sets["test"]
    teacher = network("resnet56", given.teacher_weights)
    settings = {"samples": given.samples, "epochs": given.epochs, "test_samples": _TEST, "batch_size": 64}
    stored = json.loads(given.json.read_text()) if given.json.is_file() else {}
    cells = stored.get("cells", []) if stored.get("settings") == settings else []
    for seed in range(given.seeds):
        for line in given.only:
            if any(each["line"] == line and each["seed"] == seed for each in cells):
                continue
            cells.append(cell(line, seed, train, test, teacher, given.epochs))
            print(time.strftime("%H:%M"), cells[-1], flush=True)
            found = {
                "settings": settings,
                "summary": summary(cells),
                "cells": cells,
                "machine": facts(),
                "command": "python -m benchmarks.quality.defaults --data-root DIR --teacher-weights FILE",
            }
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(summary(cells), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
