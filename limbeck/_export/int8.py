"""The ONNX file in int8: static, per channel, calibrated on training samples, by ONNX Runtime's own tool."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from limbeck._export import onnx
from limbeck._export.parity import BATCHES
from limbeck._export.tracing import Traced
from limbeck.errors import RunError, require

FILE = "model_int8.onnx"

_REFUSED: tuple[type[Exception], ...] = (ValueError, RuntimeError, KeyError)  # what the tool raises


def export_int8(source: Path, traced: Traced, calibration: Iterable[Any]) -> Path:
    """Writes `model_int8.onnx` beside a float file and runs it at batch 1, 2 and 7.

    Weights are int8 with a scale for each output channel; activations are int8 with the range that the
    calibration samples show. What it loses is for the caller to find out.

    Args:
        source: the float file.
        traced: the network that it was made from, for inputs.
        calibration: batches of training samples.

    Raises:
        RunError: the tool or the runtime refuses the network; no file is left.
    """
    target = source.with_name(FILE)
    target.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=source.parent, prefix=".int8.") as folder:
            draft = Path(folder) / FILE
            _quantize(source, draft, _feeds(traced, calibration))
            run = onnx.runner(draft, traced.names, torch.get_num_threads())
            for number in BATCHES:
                answer = run(traced.of_batch(number))
                if len(answer) != number or not bool(answer.isfinite().all()):
                    raise RunError(f"the int8 file gives no answers at batch {number}, so it was not kept")
            os.replace(draft, target)
    except OSError as error:
        raise RunError(
            f"{target} could not be written: {error.strerror or error}", fix="make room"
        ) from error
    return target


def _feeds(traced: Traced, calibration: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for batch in calibration:
        yield {name: value.numpy() for name, value in zip(traced.names, traced.values(batch), strict=True)}


def _quantize(source: Path, draft: Path, feeds: Iterator[dict[str, Any]]) -> None:
    tool = require("onnxruntime.quantization", "export", "int8")
    shapes = require("onnxruntime.quantization.shape_inference", "export", "int8")

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """Hands over the calibration samples, a batch a call, then None."""

        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    prepared = draft.with_name("prepared.onnx")
    with _quiet():
        try:
            # torch's exporter has given all shapes, and the symbolic pass refuses some graphs of texts
            shapes.quant_pre_process(source, prepared, skip_symbolic_shape=True)
            tool.quantize_static(
                prepared,
                draft,
                Reader(),
                quant_format=tool.QuantFormat.QDQ,
                per_channel=True,
                activation_type=tool.QuantType.QInt8,
                weight_type=tool.QuantType.QInt8,
            )
        except _REFUSED + onnx.failures() as error:
            said = str(error).strip().partition("\n")[0][:200]
            raise RunError(
                f"ONNX Runtime does not bring this network to int8: {said}", fix="int8 = false"
            ) from error
    _copy_facts(source, draft)


def _copy_facts(source: Path, draft: Path) -> None:
    """What the float file says of itself, which the tool drops."""
    package = require("onnx", "export", "int8")
    given, made = package.load(str(source)), package.load(str(draft))
    facts = {entry.key: entry.value for entry in given.metadata_props}
    package.helper.set_model_props(made, facts)
    package.save(made, str(draft))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what the tool has to say: what matters is raised."""
    said = io.StringIO()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
