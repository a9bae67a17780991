"""A student as one self-contained ONNX file, kept only after it ran and agreed."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._export.facts import KEY, Facts
from limbeck._export.parity import BATCHES, TOLERANCE, Run, compare
from limbeck._export.tracing import TRACED, Traced, not_exported, short
from limbeck.errors import LimbeckError, RunError, require
from limbeck.task import Task

FILE = "model.onnx"
#: The newest that most runtimes on devices know, and the oldest with antialiased resizing.
OPSET = 18
#: A protobuf file holds at most this much; larger weights go into a second file.
_LARGEST = 2_000_000_000


@dataclass(frozen=True)
class Exported:
    """A file for the device, and how far it agrees.

    Attributes:
        path: the file.
        bytes: of the file, with its weights.
        difference: largest absolute difference of an output from PyTorch's, over `samples`.
        samples: inputs that were compared.
        batches: batch sizes at which it was run.
        runtime: what ran it, as "onnxruntime 1.32.0".
        inputs: names of its inputs.
    """

    path: Path
    bytes: int
    difference: float
    samples: int
    batches: tuple[int, ...]
    runtime: str
    inputs: tuple[str, ...]

    def stored(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            **asdict(self),
            "path": str(self.path),
            "batches": list(self.batches),
            "inputs": list(self.inputs),
        }


def export_onnx(
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
    """Writes `folder/model.onnx`, which takes the inputs of the data.

    The batch is free (so is the length of texts). The file is run at batch 1, 2 and 7 in ONNX Runtime and
    compared with PyTorch on these and on the batches given; a file that differs is not kept.

    Args:
        network: a copy of it is exported, on the CPU, in float32 and eval.
        folder: made if absent.
        example: inputs of at least one sample: a tensor, a mapping of keyword inputs, or a batch.
        validation_batches: further inputs to compare on, in the same forms.
        task: reads the network's output; classification unless given.
        facts: what the user of the file has to know, written into it.
        in_graph: whether the file holds the network's preprocessing; without it the file takes what
            `Preprocessed.prepare` gives, and says so.
        tolerance: largest difference of an output, see `parity.TOLERANCE`.

    Raises:
        RunError: it cannot be exported, does not run at these batch sizes, or differs; names the module.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "export", "export to ONNX")
    traced = Traced(network, example, task, in_graph=in_graph)
    told = replace(facts or Facts(), preprocessing=traced.outside, names=traced.names)
    target = Path(folder) / FILE
    draft = target.with_name(f".{FILE}.draft")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # of another student, should this one fail
        _write(traced, draft, told)
        run = runner(draft, traced.names, torch.get_num_threads())
        _refuse_frozen(draft)
        parity = compare(traced, run, validation_batches, "the ONNX file", tolerance)
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
    """`onnxruntime 1.32.0`."""
    return f"onnxruntime {require('onnxruntime', 'export', 'an ONNX file').__version__}"


# -- writing ----------------------------------------------------------------------------------------------


def _write(traced: Traced, file: Path, facts: Facts) -> None:
    """Traces the network and writes it; quiet, whatever the exporter has to say."""
    said = StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                traced,
                tuple(traced.of_batch(TRACED)),
                dynamo=True,
                dynamic_shapes=traced.dynamic_shapes(),
                input_names=list(traced.names),
                output_names=["logits"],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise not_exported(traced, error, "ONNX") from error
    if program is None:
        raise RunError("the exporter gave no program", fix="a newer torch and onnxscript")
    if traced.bytes > _LARGEST:
        raise RunError(f"the network takes {traced.bytes:,} bytes; one ONNX file holds {_LARGEST:,}")
    program.model.metadata_props[KEY] = facts.to_json()
    if facts.classes:  # where other tools look
        program.model.metadata_props["classes"] = json.dumps(list(facts.classes))
    program.save(file, external_data=False)


# -- running ----------------------------------------------------------------------------------------------


def session(file: Path, threads: int) -> Any:
    """A file in ONNX Runtime, on the processor.

    Args:
        file: the file.
        threads: of one operation.

    Raises:
        one of `failures()`: it does not load.
    """
    runtime = require("onnxruntime", "export", "an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it has to say is raised
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def runner(file: Path, names: Sequence[str], threads: int) -> Run:
    """A file as a function of its inputs in the order of their names.

    Raises:
        RunError: it does not load.
    """
    try:
        opened = session(file, threads)
    except failures() as error:
        raise _not_run(file, str(error), "does not load") from error

    def run(values: Sequence[Tensor]) -> Tensor:
        try:
            given = {name: value.numpy() for name, value in zip(names, values, strict=True)}
            return torch.from_numpy(opened.run(None, given)[0])
        except failures() as error:
            raise _not_run(file, str(error), f"does not run at batch {len(values[0])}") from error

    return run


def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; it has no common class of its own."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", "export", "an ONNX file")
    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names)


def _refuse_frozen(file: Path) -> None:
    """Refuses a file whose inputs have a fixed batch; names the operators that hold the traced number."""
    onnx = require("onnx", "export", "export to ONNX")
    graph = onnx.load(str(file), load_external_data=False).graph
    for value in graph.input:
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise _not_run(file, "", f"has a frozen batch: it would take {TRACED} samples only")


def _not_run(file: Path, message: str, what: str) -> LimbeckError:
    """The refusal of a file that its runtime does not run, with module, operator and line of the cause."""
    node = _blamed(file, message)
    said = f"the ONNX file {what}, so it was not kept"
    if node is None:
        return RunError(f"{said}: {message.partition(' : ')[2][:200]}" if message else said)
    facts = {entry.key: entry.value for entry in node.metadata_props}
    scopes = re.findall(r"'([^']*)'", facts.get("pkg.torch.onnx.name_scopes", ""))
    module = short(scopes[-2]) if len(scopes) > 1 else "the network"
    lines = re.findall(r'File "([^"]+)", line (\d+)', facts.get("pkg.torch.onnx.stack_trace", ""))
    return RunError(
        f"{said}: module {module!r}, operator {node.op_type}",
        where=":".join(lines[-1]) if lines else None,
        fix="x.shape[0] without int(), or -1 for the batch: x.reshape(-1, n), x.flatten(1)",
    )


def _blamed(file: Path, message: str) -> Any:
    """The node that the runtime names, else the first whose constants hold the batch that was traced."""
    onnx = require("onnx", "export", "export to ONNX")
    graph = onnx.load(str(file), load_external_data=False).graph
    named = re.search(r"Name:'([^']+)'", message)
    for node in graph.node:
        if named is not None and node.name == named[1]:
            return node
    return next((node for node in graph.node if re.search(rf"\[{TRACED}\b", _traced_call(node))), None)


def _traced_call(node: Any) -> str:
    """The call as torch traced it, as `view(args = (%x, [13, -1]))`."""
    return next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.fx_node"), "")
