"""A student as a program of `torch.export`: PyTorch runs it without the code that built it."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from limbeck._export.facts import KEY, Facts
from limbeck._export.onnx import Exported
from limbeck._export.parity import BATCHES, TOLERANCE, Run, compare
from limbeck._export.tracing import TRACED, Traced, not_exported
from limbeck.errors import RequestError, RunError
from limbeck.task import Task

FILE = "model.pt2"


def export_program(
    network: nn.Module,
    folder: str | Path,
    example: Any,
    *,
    validation_batches: Iterable[Any] = (),
    task: Task | None = None,
    facts: Facts | None = None,
    in_graph: bool = True,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Writes `folder/model.pt2`, loads it again, and compares what was loaded; as `export_onnx` otherwise.

    Raises:
        RunError: it cannot be exported, does not run at these batch sizes, or differs.
    """
    traced = Traced(network, example, task, in_graph=in_graph)
    told = replace(facts or Facts(), preprocessing=traced.outside, names=traced.names)
    target = Path(folder) / FILE
    draft = target.with_name(f".draft.{FILE}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        _write(traced, draft, told)
        run = runner(open_program(draft)[0])
        parity = compare(traced, run, validation_batches, "the PyTorch program", tolerance)
        size = draft.stat().st_size
        os.replace(draft, target)
    except OSError as error:
        raise RunError(
            f"{target} could not be written: {error.strerror or error}", fix="make room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return Exported(
        target, size, parity.difference, parity.samples, BATCHES, runtime_name(), tuple(traced.names)
    )


def runtime_name() -> str:
    """`torch 2.14.1`."""
    return f"torch {torch.__version__.partition('+')[0]}"


def _write(traced: Traced, file: Path, facts: Facts) -> None:
    said = StringIO()
    with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(
                traced,
                tuple(traced.of_batch(TRACED)),
                dynamic_shapes=traced.dynamic_shapes(),
                strict=False,
            )
        except (RuntimeError, ValueError, AssertionError) as error:  # what torch raises here, by cause
            raise not_exported(traced, error, "a PyTorch program") from error
        torch.export.save(program, file, extra_files={KEY: facts.to_json()})


def open_program(file: Path) -> tuple[nn.Module, Facts | None]:
    """A program as a network, and what it says of itself; None for one that limbeck did not write.

    Raises:
        RequestError: it is no such file.
    """
    extra = {KEY: ""}
    try:
        if not zipfile.is_zipfile(file):  # torch would log a traceback of its own
            raise ValueError("no archive")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(file, extra_files=extra)
    except (RuntimeError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise RequestError(
            f"{file} is damaged, or no program of torch.export", fix="limbeck export RUN --to torch"
        ) from error
    return cast(nn.Module, program.module()), Facts.from_json(extra[KEY]) if extra[KEY] else None


def runner(program: nn.Module) -> Run:
    """A program as a function of its inputs in their order."""

    def run(values: Sequence[Tensor]) -> Tensor:
        try:
            with torch.inference_mode():
                return cast(Tensor, program(*values))
        except (RuntimeError, AssertionError) as error:
            said = str(error).strip().partition("\n")[0]
            raise RunError(
                f"the PyTorch program does not run at batch {len(values[0])}, so it was not kept: {said}",
                fix="x.shape[0] without int(), or -1 for the batch: x.reshape(-1, n), x.flatten(1)",
            ) from error

    return run
