"""A student as a file for the device: one self-contained ONNX file, kept only after it ran and agreed."""

from __future__ import annotations

import copy
import json
import os
import re
import traceback
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._taps.paths import plain
from limbeck.errors import LimbeckError, RequestError, RunError, require
from limbeck.task import Task

FILE = "model.onnx"
#: Batch sizes at which every file is run before it is kept.
BATCHES = (1, 2, 7)
#: Largest absolute difference of an output between PyTorch and the file's own runtime.
TOLERANCE = 1e-4
#: The newest that most runtimes on devices know, and the oldest with antialiased resizing.
OPSET = 18
#: Batch of the traced example: a number that stands out where a network has frozen it.
_TRACED = 13
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


class _Answering(nn.Module):
    """A network with its inputs in a row and one tensor as output, as the exporter needs it.

    Args:
        network: with its preprocessing.
        names: of its keyword inputs; empty where it takes one tensor.
        task: reads the output.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], task: Task) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)
        self.task = task

    def forward(self, *values: Tensor) -> Tensor:
        """Inputs in the order of their names -> logits."""
        if not self.names:
            return self.task.read(self.network(*values))  # type: ignore[no-any-return]
        named = dict(zip(self.names, values, strict=True))
        return self.task.read(self.network(**named))  # type: ignore[no-any-return]


def export_onnx(
    network: nn.Module,
    folder: str | Path,
    example: Any,
    *,
    validation_batches: Iterable[Any] = (),
    task: Task | None = None,
    classes: Sequence[str] = (),
    tolerance: float = TOLERANCE,
) -> Exported:
    """Writes `folder/model.onnx`, which takes the inputs of the data and holds the network's preprocessing.

    The batch is free (so is the length of texts). The file is run at batch 1, 2 and 7 in ONNX Runtime and
    compared with PyTorch on these and on the batches given; a file that differs is not kept.

    Args:
        network: a copy of it is exported, on the CPU, in float32 and eval.
        folder: made if absent.
        example: inputs of at least one sample: a tensor, a mapping of keyword inputs, or a batch.
        validation_batches: further inputs to compare on, in the same forms.
        task: reads the network's output; classification unless given.
        classes: names of the outputs, written into the file.
        tolerance: largest absolute difference of an output.

    Raises:
        RunError: it cannot be exported, does not run at these batch sizes, or differs; names the module.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "export", "export to ONNX")
    inputs = _inputs(example)
    names = list(inputs) if isinstance(inputs, Mapping) else []
    answering = _Answering(_copied(network), names, task or _classification()).eval()
    target = Path(folder) / FILE
    draft = target.with_name(f".{FILE}.draft")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # of another student, should this one fail
        _write(answering, inputs, draft, classes)
        difference, samples, runtime = _compare(answering, draft, inputs, validation_batches, tolerance)
        size = draft.stat().st_size
        os.replace(draft, target)
    except OSError as error:
        raise RunError(
            f"{target} could not be written: {error.strerror or error}", fix="make room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return Exported(target, size, difference, samples, BATCHES, runtime, tuple(names) or ("inputs",))


def _classification() -> Task:
    from limbeck.task import Classification

    return Classification()


def _copied(network: nn.Module) -> nn.Module:
    """A copy on the CPU in float32 and eval; the network itself stays as it is."""
    copied = copy.deepcopy(plain(network)).cpu().float().eval()
    return copied.to(memory_format=torch.contiguous_format).requires_grad_(False)


def _inputs(given: Any) -> Any:
    """The inputs in a batch in any form: a tensor, or a mapping of keyword inputs."""
    if isinstance(given, Mapping) and "inputs" in given:
        given = given["inputs"]
    if isinstance(given, Mapping):
        return {name: value.cpu() for name, value in given.items()}
    if not isinstance(given, Tensor):
        raise RequestError(f"inputs of type {type(given).__name__}; needed a tensor, or a mapping of tensors")
    return given.cpu()


def _values(inputs: Any) -> list[Tensor]:
    return list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]


def _of_batch(inputs: Any, number: int) -> list[Tensor]:
    """Inputs repeated and cut to a batch of this size."""
    return [
        value.repeat(-(-number // len(value)), *[1] * (value.ndim - 1))[:number].contiguous()
        for value in _values(inputs)
    ]


# -- writing ----------------------------------------------------------------------------------------------


def _write(answering: _Answering, inputs: Any, file: Path, classes: Sequence[str]) -> None:
    """Traces the network and writes it; quiet, whatever the exporter has to say."""
    values = tuple(_of_batch(inputs, _TRACED))
    names = list(answering.names) or ["inputs"]
    batch = torch.export.Dim("batch")
    length = torch.export.Dim("length")
    shapes = tuple({0: batch, **({1: length} if _is_text(value) else {})} for value in values)
    said = StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                answering,
                values,
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=names,
                output_names=["logits"],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise _not_exported(answering, error) from error
    if program is None:
        raise RunError("the exporter gave no program", fix="a newer torch and onnxscript")
    _describe(program, classes)
    size = sum(value.numel() * value.element_size() for value in answering.state_dict().values())
    if size > _LARGEST:
        raise RunError(f"the network takes {size:,} bytes; one ONNX file holds {_LARGEST:,}")
    program.save(file, external_data=False)


def _is_text(value: Tensor) -> bool:
    return not value.is_floating_point() and value.ndim == 2


def _describe(program: Any, classes: Sequence[str]) -> None:
    """What a user of the file has to know, inside the file."""
    facts = program.model.metadata_props
    facts["inputs"] = (
        "pixels 0 to 1 [batch, channels, height, width], rows, or ids: as the training data gave"
    )
    if classes:
        facts["classes"] = json.dumps(list(classes))


def _not_exported(answering: nn.Module, error: BaseException) -> RunError:
    """The refusal of a network that cannot be traced, with the module where tracing stopped."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    module, line = _where(answering, first.__traceback__)
    reason = str(first).strip().partition("\n")[0] or type(first).__name__
    return RunError(
        f"the network cannot be exported to ONNX: {module}: {reason}",
        where=line,
        fix="a forward whose shapes and branches do not depend on values",
    )


def _where(answering: nn.Module, trace: types.TracebackType | None) -> tuple[str, str | None]:
    """The innermost of our modules that a traceback passes through, and the line of its code."""
    names = {id(module): name for name, module in answering.named_modules()}
    module, line = "the network", None
    library = str(Path(torch.__file__).parent)
    for frame, number in traceback.walk_tb(trace):
        owner = frame.f_locals.get("self")
        if frame.f_code.co_filename.startswith(library) or owner is answering:
            continue
        if isinstance(owner, nn.Module) and id(owner) in names:
            module = f"module {_short(names[id(owner)])!r} ({type(owner).__name__})"
            line = f"{frame.f_code.co_filename}:{number}"
    return module, line


def _short(name: str) -> str:
    """A module's name without our wrappers."""
    return re.sub(r"^network\.?", "", name).removeprefix("body.") or "the network"


# -- comparing --------------------------------------------------------------------------------------------


def _compare(
    answering: _Answering, file: Path, inputs: Any, batches: Iterable[Any], tolerance: float
) -> tuple[float, int, str]:
    """Runs the file at all batch sizes and on all batches; gives largest difference, samples and runtime.

    Raises:
        RunError: it does not run, or differs by more than `tolerance`.
    """
    runtime = require("onnxruntime", "export", "export to ONNX")
    run = _session(runtime, file)
    _refuse_frozen(file)
    largest, samples = 0.0, 0
    for number in BATCHES:
        largest = max(largest, _difference(answering, run, _of_batch(inputs, number), file))
        samples += number
    for batch in batches:
        values = _values(_inputs(batch))
        largest = max(largest, _difference(answering, run, values, file))
        samples += len(values[0])
    if not largest <= tolerance:
        raise RunError(
            f"the ONNX file differs from PyTorch by {largest:.2g}, more than {tolerance:.0e}, "
            "so it was not kept",
            fix="a network without random or value-dependent parts in eval",
        )
    return largest, samples, f"onnxruntime {runtime.__version__}"


def _session(runtime: Any, file: Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what it has to say is raised
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except _failures() as error:
        raise _not_run(file, str(error), "does not load") from error


def _difference(answering: _Answering, session: Any, values: Sequence[Tensor], file: Path) -> float:
    """Largest absolute difference on one batch; infinite where one of the two is not finite alone."""
    names = list(answering.names) or ["inputs"]
    with torch.inference_mode():
        expected = answering(*values)
    try:
        given = session.run(None, {name: v.numpy() for name, v in zip(names, values, strict=True)})[0]
    except _failures() as error:
        raise _not_run(file, str(error), f"does not run at batch {len(values[0])}") from error
    found = torch.from_numpy(given)
    if found.shape != expected.shape:
        raise _not_run(
            file, "", f"gives {list(found.shape)} for {list(expected.shape)} at batch {len(values[0])}"
        )
    difference = (found - expected).abs()
    return float("inf") if bool(difference.isnan().any()) else float(difference.max())


def _failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; it has no common class of its own."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", "export", "export to ONNX")
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
            raise _not_run(file, "", f"has a frozen batch: it would take {_TRACED} samples only")


def _not_run(file: Path, message: str, what: str) -> LimbeckError:
    """The refusal of a file that its runtime does not run, with module, operator and line of the cause."""
    node = _blamed(file, message)
    said = f"the ONNX file {what}, so it was not kept"
    if node is None:
        return RunError(f"{said}: {message.partition(' : ')[2][:200]}" if message else said)
    facts = {entry.key: entry.value for entry in node.metadata_props}
    scopes = re.findall(r"'([^']*)'", facts.get("pkg.torch.onnx.name_scopes", ""))
    module = _short(scopes[-2]) if len(scopes) > 1 else "the network"
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
    return next((node for node in graph.node if re.search(rf"\[{_TRACED}\b", _traced_call(node))), None)


def _traced_call(node: Any) -> str:
    """The call as torch traced it, as `view(args = (%x, [13, -1]))`."""
    return next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.fx_node"), "")
