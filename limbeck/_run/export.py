"""Files for the device: written, compared with the network, scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._export.onnx import export_onnx
from limbeck._run.folder import RunFolder
from limbeck._run.session import Session
from limbeck.data.dataset import Dataset
from limbeck.engine import evaluate
from limbeck.errors import RunError, require

_BATCH = 256


@dataclass
class Exported:
    """A file for the device.

    Args:
        key: of run.json and of the closing table, as "onnx".
        file: in the folder of the run.
        runtime: what runs it.
        network: the file as a network.
        about: what run.json says of it.
    """

    key: str
    file: str
    runtime: str
    network: nn.Module
    about: dict[str, Any] = field(default_factory=dict)


class OnnxNetwork(nn.Module):
    """An ONNX file, called like the network that it was made from; on the processor, without gradient.

    Args:
        file: the file.
        threads: of one operation.
    """

    def __init__(self, file: Path, threads: int) -> None:
        super().__init__()
        runtime = require("onnxruntime", "export", "an ONNX file")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self.session.get_inputs()]

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Inputs as the data give them -> logits."""
        given = dict(zip(self.names, inputs, strict=False)) | named
        values = {name: given[name].cpu().numpy() for name in self.names}
        return torch.from_numpy(self.session.run(None, values)[0])


def export(
    session: Session, folder: RunFolder, network: nn.Module, data: Dataset
) -> tuple[list[Exported], list[str]]:
    """The files that the recipe asks for; a file that is not like its network is not kept.

    Args:
        session: of the run.
        folder: of the run.
        network: the distilled student.
        data: that the closing table is about.

    Returns:
        The files, and what went wrong with those that are missing.
    """
    made: list[Exported] = []
    failed: list[str] = []
    for kind in session.recipe.export.to:
        try:
            made.append(_MAKERS[kind](session, folder, network, data))
        except RunError as error:
            failed.append(str(error))
    return made, failed


def _onnx(session: Session, folder: RunFolder, network: nn.Module, data: Dataset) -> Exported:
    splits, task = session.splits, session.splits.task
    where = folder.path / "exports" / "onnx"
    compared = splits.validation or splits.train
    written = export_onnx(
        network,
        where,
        splits.train.batch([0]),
        validation_batches=_batches(compared),
        task=task,
        classes=splits.classes or (),
    )
    runner = OnnxNetwork(written.path, 1)
    scores = evaluate(runner, data, task)
    about = {
        "score": scores[task.score_name],
        "scores": scores,
        "bytes": written.bytes,
        "difference": written.difference,
        "compared_samples": written.samples,
        "note": f"differs by {written.difference:.0e}",
    }
    return Exported("onnx", "exports/onnx/model.onnx", written.runtime, runner, about)


def _batches(data: Dataset) -> Iterator[Any]:
    for part in torch.split(torch.arange(len(data)), _BATCH):
        yield data.batch(part)


_MAKERS: dict[str, Callable[[Session, RunFolder, nn.Module, Dataset], Exported]] = {"onnx": _onnx}
