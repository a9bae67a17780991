"""Files for the device, opened: called like the network that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._export import onnx, program
from limbeck._export.facts import KEY, Facts
from limbeck.errors import RequestError
from limbeck.models.building import Architecture
from limbeck.models.loaded import Loaded
from limbeck.models.preprocessing import Preprocessed


class FileNetwork(nn.Module):
    """A file in its runtime as a network; on the processor, without gradient.

    Args:
        names: of its inputs.
        run: the file.
        runtime: what runs it, as "onnxruntime 1.32.0".
    """

    def __init__(self, names: Sequence[str], run: Callable[[Sequence[Tensor]], Tensor], runtime: str) -> None:
        super().__init__()
        self.names = tuple(names)
        self.run = run
        self.runtime = runtime

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Inputs as the file takes them -> logits."""
        given = dict(zip(self.names, inputs, strict=False)) | named
        return self.run([given[name].cpu() for name in self.names])


def open_file(file: str | Path, threads: int = 1) -> tuple[FileNetwork, Facts | None]:
    """A file and what it says of itself; None for one that limbeck did not write.

    Args:
        file: an `.onnx` or a `.pt2`.
        threads: of one operation; a PyTorch program runs with torch's own.

    Raises:
        RequestError: there is no such file, or it is none that can be run.
    """
    path = Path(file)
    if path.suffix not in _OPENERS:
        raise RequestError(f"{path} is no file for a device", fix=" or ".join(_OPENERS))
    if not path.is_file():
        raise RequestError(f"there is no file {path}", fix="limbeck export RUN")
    return _OPENERS[path.suffix](path, threads)


def _open_onnx(path: Path, threads: int) -> tuple[FileNetwork, Facts | None]:
    try:
        session = onnx.session(path, threads)
    except onnx.failures() as error:
        raise RequestError(
            f"{path} is damaged, or no ONNX file that {onnx.runtime_name()} runs", fix="limbeck export RUN"
        ) from error
    names = [given.name for given in session.get_inputs()]
    told = session.get_modelmeta().custom_metadata_map.get(KEY)

    def run(values: Sequence[Tensor]) -> Tensor:
        given = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return FileNetwork(names, run, onnx.runtime_name()), Facts.from_json(told) if told else None


def _open_program(path: Path, threads: int) -> tuple[FileNetwork, Facts | None]:
    opened, facts = program.open_program(path)
    # torch names the inputs of a program by the values of its forward: they are given in order
    names = list(facts.names) if facts is not None else ["inputs"]
    return FileNetwork(names, program.runner(opened), program.runtime_name()), facts


_OPENERS: dict[str, Callable[[Path, int], tuple[FileNetwork, Facts | None]]] = {
    ".onnx": _open_onnx,
    ".pt2": _open_program,
}


def ready(file: str | Path, threads: int = 1) -> Loaded:
    """A file that limbeck wrote, ready to predict; as `limbeck.load` of a student.

    Raises:
        RequestError: it cannot be run, or does not say how its inputs are made.
    """
    network, facts = open_file(file, threads)
    if facts is None:
        raise RequestError(
            f"{file} was not written by limbeck, so it does not say how a sample becomes its input",
            fix="limbeck export RUN",
        )
    reading = facts.reading
    size: Any = reading.get("size", ())
    return Loaded(
        network=Preprocessed(network, facts.preprocessing).eval(),
        classes=list(facts.classes),
        kind=facts.kind,
        reading=reading,
        architecture=Architecture(
            f"file:{file}", len(facts.classes), channels=reading.get("channels", 0), size=tuple(size)
        ),
        folder=Path(file).parent,
    )
