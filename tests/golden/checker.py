"""Runs golden files against the implementation."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from limbeck.errors import LimbeckError
from tests.golden import MODULES, SLUGS, Arrays, Case, Results

#: What a wrong file or a wrong implementation raises while a case runs; anything else is a fault of ours.
TROUBLE = (
    AssertionError,
    LimbeckError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Outcome:
    """What became of one file; `text` is the line to print."""

    file: str
    state: Literal["passed", "failed", "not built"]
    text: str


def slug_of(name: str) -> str | None:
    """The longest slug that a file name starts with."""
    return max((slug for slug in SLUGS if name.startswith(slug)), key=len, default=None)


def check_folder(folder: Path, *, dtype: torch.dtype = torch.float64) -> Iterator[Outcome]:
    """Checks every `.npz` file of a folder, by name."""
    for path in sorted(folder.glob("*.npz")):
        yield check_file(path, dtype=dtype)


def check_file(path: Path, *, dtype: torch.dtype = torch.float64) -> Outcome:
    """Checks one file; float32 (also where the file itself holds it) has the looser tolerance."""
    slug = slug_of(path.name)
    if slug is None:
        return Outcome(path.name, "failed", f"FAILED {path.name}: its name starts with no method's slug")
    if slug not in MODULES:
        return Outcome(path.name, "not built", f"not built yet: {slug}  ({path.name})")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (BadZipFile, EOFError, OSError, ValueError) as error:
        return Outcome(path.name, "failed", f"FAILED {path.name}: cannot be read ({error})")
    cases: tuple[Case, ...] = importlib.import_module(MODULES[slug]).CASES
    case = next((case for case in cases if set(case.needs) <= set(arrays)), None)
    if case is None:
        return Outcome(path.name, "failed", f"FAILED {path.name}: its arrays fit no known case of {slug}")
    if any(array.dtype == np.float32 for array in arrays.values()):
        dtype = torch.float32
    problem, largest = _run(case, Arrays(arrays, dtype))
    label = f"{path.name}: {slug}, case {case.name}"
    if problem:
        return Outcome(path.name, "failed", f"FAILED {label}: {problem}")
    return Outcome(path.name, "passed", f"ok {label}, {len(arrays)} arrays, largest difference {largest:.1e}")


def _run(case: Case, arrays: Arrays) -> tuple[str, float]:
    """What is wrong (empty if nothing) and the largest difference, relative where entries are above 1."""
    try:
        results = case.results(arrays)
    except TROUBLE as error:
        return f"{type(error).__name__}: {error}".replace("\n", " "), np.inf
    unknown = sorted(set(arrays.arrays) - set(results) - arrays.read)
    if unknown:
        return f"fits no known case: unknown arrays {', '.join(unknown[:5])}", np.inf
    missing = sorted(set(results) - set(arrays.arrays))
    if missing:
        return f"fits no known case: missing arrays {', '.join(missing[:5])}", np.inf
    return _compare(case, arrays, results)


def _compare(case: Case, arrays: Arrays, results: Results) -> tuple[str, float]:
    single = arrays.dtype == torch.float32
    worst = 0.0
    wrong: list[tuple[float, str]] = []
    for name, value in results.items():
        if single and name in case.wide_only:
            continue
        actual, expected = _array(value), arrays.arrays[name]
        if actual.shape != expected.shape:
            return f"{name} has shape {actual.shape}, in the file {expected.shape}", np.inf
        difference = _difference(actual, expected, of_largest=single)
        tolerance = case.tolerance32 if single else case.tolerances.get(name, case.tolerance)
        worst = max(worst, difference)
        if not difference <= tolerance:
            wrong.append((difference, f"{name} differs by {difference:.1e} (tolerance {tolerance:.0e})"))
    return max(wrong)[1] if wrong else "", worst


def _array(value: object) -> np.ndarray:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        value = torch.stack([torch.as_tensor(each) for each in value])
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _difference(actual: np.ndarray, expected: np.ndarray, *, of_largest: bool) -> float:
    """The largest difference, relative to the entry (or the largest entry) where that is above 1."""
    if expected.size == 0:
        return 0.0
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    scale = np.maximum(1.0, np.abs(expected).max() if of_largest else np.abs(expected))
    with np.errstate(invalid="ignore"):
        relative = np.where(same, 0.0, np.abs(actual - expected) / scale)
    return float(np.inf) if np.isnan(relative).any() else float(relative.max())
