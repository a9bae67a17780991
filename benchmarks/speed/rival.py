"""torchdistill, run as its own example runs it, on the same networks, batches and loss.

Beside this environment, without anything that it brings along (torch 2.12 or newer, torchvision 0.27 or newer
and PyYAML are needed, and here already):

    pip install --no-deps --target .bench/torchdistill torchdistill

A `DistillationBox` is built with its configuration; an epoch is `pre_epoch_process`, for each batch
`pre_forward_process`, `forward_process`, `post_forward_process`, and then `post_epoch_process`. Batches come
from the source of all other loops in place of its loader, which would read sample by sample. It has no
setting for mixed precision without Accelerate, nor one for channels_last: with `bf16`, `forward_process` runs
inside autocast and networks and batches are laid out before, as users do it.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.speed.loops import HARD, SGD, SOFT, TEMPERATURE, Course, Loop, autocast
from benchmarks.speed.turns import Told

ROOT = Path(__file__).resolve().parents[2]
#: Where `HOW` puts it.
FOLDER = ROOT / ".bench" / "torchdistill"
HOW = "pip install --no-deps --target .bench/torchdistill torchdistill"


def version(folder: Path = FOLDER) -> str | None:
    """The version that can be imported, from a folder if it is there; None where there is none."""
    if folder.is_dir() and str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: what this environment has comes first
        importlib.invalidate_caches()
    try:
        return metadata.version("torchdistill")
    except metadata.PackageNotFoundError:
        return None


def configuration(course: Course) -> dict[str, Any]:
    """What its configuration files say of a training."""
    loss = {
        "student_module_path": ".",
        "student_module_io": "output",
        "teacher_module_path": ".",
        "teacher_module_io": "output",
        "temperature": TEMPERATURE,
        "alpha": HARD,
        "beta": SOFT,
        "reduction": "batchmean",
    }
    return {
        "num_epochs": course.epochs,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": {"lr": course.rate, **SGD}},
        "scheduler": {
            "key": "CosineAnnealingLR",
            "kwargs": {"T_max": course.steps},
            "scheduling_step": 1,
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": 1.0}}},
        },
    }


def with_torchdistill(student: nn.Module, teacher: nn.Module, course: Course, *, bf16: bool = False) -> Loop:
    """Its training loop; copies of the networks are used.

    Args:
        student: trains.
        teacher: runs in full at each step.
        course: data and settings.
        bf16: bfloat16 autocast and channels_last.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints at its import
        distillation = importlib.import_module("torchdistill.core.distillation")

    def loop(told: Told) -> None:
        form = torch.channels_last if bf16 else torch.contiguous_format
        own = copy.deepcopy(student).to(memory_format=form)
        other = copy.deepcopy(teacher).to(memory_format=form).eval()
        box = distillation.get_distillation_box(
            other, own, {}, configuration(course), torch.device("cpu"), None, False, 1
        )
        for epoch in range(1, course.epochs + 1):
            box.pre_epoch_process(epoch=epoch)
            for inputs, targets in course.read(epoch):
                inputs = inputs.contiguous(memory_format=form)
                box.pre_forward_process()
                with autocast(bf16):
                    loss = box.forward_process(inputs, targets=targets, supp_dict=None)
                box.post_forward_process(loss=loss)
                told.step(loss.item())
            box.post_epoch_process()
            told.epoch(own)

    return loop
