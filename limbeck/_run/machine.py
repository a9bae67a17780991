"""What a run computes on: the choices behind "auto", made once by rule, and the facts for run.json."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import Any

import torch

import limbeck
from limbeck._measure.timing import processor
from limbeck._recipe import sections
from limbeck.engine.settings import Machine
from limbeck.recipe import Recipe

_VERSIONS = (
    "torch",
    "accelerate",
    "safetensors",
    "numpy",
    "pydantic",
    "onnx",
    "onnxruntime",
    "timm",
    "transformers",
)


def choose(recipe: Recipe) -> Machine:
    """The machine of a run; what the recipe wrote is kept, "auto" is decided by rule.

    Device: the first GPU, else the processor. Threads: what torch takes. Workers: none, data in memory is
    quicker without. Micro-batch: the whole batch. Precision, layout and compilation depend on the networks
    and are decided by `choices`; here they are the plain ones.
    """
    given = recipe.machine
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Machine(
        device=device,
        threads=torch.get_num_threads() if given.threads == "auto" else given.threads,
        workers=0 if given.workers == "auto" else given.workers,
        precision="fp32" if given.precision == "auto" else given.precision,
        micro_batch=None if given.micro_batch == "auto" else given.micro_batch,
        layout="contiguous" if given.layout == "auto" else given.layout,
        compile=given.compile is True,
    )


def written(machine: Machine) -> sections.Machine:
    """The choices as [machine] of resolved.toml; what makes a teacher faster is not among them."""
    return sections.Machine(
        device=machine.device or "auto",
        threads=machine.threads or "auto",
        workers=machine.workers,
        precision=machine.precision,
        layout=machine.layout,
        compile=machine.compile,
        micro_batch=machine.micro_batch or "auto",
    )


def describe(machine: Machine) -> str:
    """`cpu, 2 threads, fp32`."""
    place = machine.device or "cpu"
    if place.startswith("cuda"):
        place = torch.cuda.get_device_name(place)
    count = machine.threads or torch.get_num_threads()
    return f"{place}, {count} thread{'s' if count > 1 else ''}, {machine.precision}"


def facts() -> dict[str, Any]:
    """Processor, memory, versions, state of the repository: what a figure depends on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory(),
        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "versions": {
            "limbeck": limbeck.__version__,
            "python": platform.python_version(),
            **{name: version for name in _VERSIONS if (version := _version(name))},
        },
        "git": repository(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def memory() -> int | None:
    """Bytes of main memory; None where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def repository() -> dict[str, Any] | None:
    """Commit of the working directory's git repository and whether files differ from it; None without one."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
