"""Finished runs as run.json would tell them, without having trained anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from limbeck._report.answers import Answers
from limbeck._run.evidence import Evidence
from limbeck._run.folder import RunFolder
from limbeck._run.settings import ToldRun

LATENCY = {"median": 0.25, "p95": 0.3, "runs": 200, "warmups": 20, "batch": 1, "threads": 1}


def network(score: float, parameters: int = 1000, seconds: float = 0.001) -> dict[str, Any]:
    """What run.json says of a network."""
    return {
        "score": score,
        "validation": {"accuracy": score},
        "parameters": parameters,
        "bytes": 4 * parameters,
        "latency_seconds": seconds,
        "latency": LATENCY,
    }


def told(
    method: str = "kd",
    seed: int = 0,
    *,
    student: float = 0.8,
    alone: float | None = 0.7,
    teacher: float | None = 0.9,
    evidence: Evidence | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ToldRun:
    """A run of three epochs."""
    recipe: dict[str, Any] = {
        "name": "drawn",
        "seed": seed,
        "data": {"source": "some"},
        "teacher": {"model": "big"},
        "student": {"model": "small"},
        "method": {"name": method},
    }
    networks = {"distilled": network(student)}
    networks |= {} if alone is None else {"alone": network(alone)}
    networks |= {} if teacher is None else {"teacher": network(teacher, 20_000, 0.004)}
    run: dict[str, Any] = {
        "state": "finished",
        "name": "drawn",
        "recipe": recipe,
        "networks": networks,
        "score": {"split": "test", "kind": "classes", "name": "accuracy", "samples": 1000},
        "latency": {"how": "median of 200"},
        "data": {"source": "some", "fingerprint": "f" * 64, "classes": ["a", "b"]},
        "machine": {"processor": "one", "used": "cpu, 1 thread, fp32"},
        "phases": [{"name": "distil", "chosen_epoch": 2}],
        **(changes or {}),
    }
    metrics = [
        {"phase": "distil", "epoch": n, "terms": {"hard": 1 / n}, "scores": {"student": {"accuracy": n / 9}}}
        for n in (1, 2, 3)
    ]
    return ToldRun(RunFolder(Path(f"runs/{method}-{seed}")), run, evidence, metrics)


def kept(samples: int = 1000) -> Evidence:
    """Answers of teacher, student alone and student, right in 90, 70 and 80 of 100."""
    draw = np.random.default_rng(0)
    target = draw.integers(0, 2, samples)
    networks = {
        key: Answers(np.where(draw.random(samples) < share, target, 1 - target), draw.random(samples))
        for key, share in (("teacher", 0.9), ("alone", 0.7), ("distilled", 0.8))
    }
    return Evidence(np.arange(samples), target, networks, [])
