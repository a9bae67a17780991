"""`limbeck measure`: what models and files cost on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck._export import files
from limbeck._measure import cost, timing
from limbeck._measure.rounds import NOISY, ROUNDS, Maker, in_rounds
from limbeck._run import finished, layering, machine
from limbeck._run.folder import RunFolder
from limbeck._show import figures
from limbeck._show.tables import Table
from limbeck.errors import RequestError
from limbeck.models.folder import load
from limbeck.models.loaded import Loaded
from limbeck.models.registry import check_spec

BATCHES = (1, 8, 64)
_NOWHERE = "not measurable here"
_SIDE = 32  # of made-up pictures, for a file that does not say what it takes


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        name: in the table.
        network: of one thread, for what is counted.
        inputs: of one sample, made up.
        runtime: what runs it.
        kind: how a fresh process opens it: "onnx", "program", "student"; empty where it cannot.
        path: the file or the student's folder; None for a network in memory.
        counted: whether parameters and operations can be told.
    """

    name: str
    network: nn.Module
    inputs: Any
    runtime: str
    kind: str = ""
    path: Path | None = None
    counted: bool = True

    def maker(self) -> Maker:
        """Calls by batch size and threads; a file gets a session for each number of threads."""

        def make(batch: int, threads: int) -> Callable[[], object]:
            network = self.network
            if self.kind == "onnx" and self.path is not None:
                network = files.open_file(self.path, threads)[0]
            inputs = _of_batch(self.inputs, batch)
            if isinstance(inputs, Mapping):
                return lambda: network(**inputs)
            return lambda: network(inputs)

        return make


@dataclass(frozen=True)
class Measured:
    """Figures of models; shows itself as a table.

    Attributes:
        models: by name all figures, plain values.
        machine: processor and versions.
        others: figures of other machines, by file that they were stored in.
    """

    models: Mapping[str, Mapping[str, Any]]
    machine: Mapping[str, Any]
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """Latencies, then sizes."""
        return [self._latencies(), self._sizes()]

    def _all(self) -> list[tuple[str, Mapping[str, Any]]]:
        stored = [
            (f"{name} ({file})", about)
            for file, told in self.others.items()
            for name, about in told["models"].items()
        ]
        return [*self.models.items(), *stored]

    def _latencies(self) -> Table:
        rows = []
        for name, about in self._all():
            for number, cell in enumerate(about["latency"]):
                rows.append([name if number == 0 else "", *_latency_cells(cell)])
        head = ("", ">batch", ">threads", ">median ms", ">p95", ">spread", ">samples/s", "")
        notes = [f"median of {ROUNDS} rounds in turn; noisy: they differ by more than {NOISY:.0%}"]
        notes += [f"{self.machine['processor']}; {', '.join(self._runtimes())}"]
        notes += [
            f"{file} was measured on {told['machine']['processor']}" for file, told in self.others.items()
        ]
        return Table(head, rows, notes)

    def _runtimes(self) -> list[str]:
        return sorted({cell["runtime"] for _, about in self._all() for cell in about["latency"]})

    def _sizes(self) -> Table:
        head = ["", ">parameters", ">file", ">compressed", ">operations", ">memory"]
        known = any(about.get("energy_joules") is not None for _, about in self._all())
        if known:
            head.append(">energy a sample")
        rows = [[name, *_size_cells(about)][: len(head)] for name, about in self._all()]
        return Table(head, rows, [] if known else [f"energy: {_NOWHERE}"])

    def text(self) -> str:
        """Both tables."""
        return "\n\n".join(table.text() for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """One object; it can be stored and given to `limbeck measure` again."""
        models = {name: dict(about) for name, about in self.models.items()}
        return {"schema": 1, "models": models, "machine": dict(self.machine)}

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables)


def _latency_cells(cell: Mapping[str, Any]) -> list[str]:
    return [
        str(cell["batch"]),
        str(cell["threads"]),
        f"{cell['median']:.2f}",
        f"{cell['p95']:.2f}",
        f"{cell['spread']:.0%}",
        f"{cell['throughput']:,.0f}",
        "noisy" if cell["noisy"] else "",
    ]


def _size_cells(about: Mapping[str, Any]) -> list[str]:
    def shown(key: str, form: Callable[[Any], str]) -> str:
        value = about.get(key)
        return "" if value is None else form(value)

    energy = about.get("energy_joules")
    return [
        shown("parameters", lambda number: f"{number:,}"),
        shown("bytes", figures.size),
        shown("compressed_bytes", figures.size),
        shown("operations", lambda number: f"{number / 1e6:,.1f} M"),
        shown("memory_bytes", figures.size) or _NOWHERE,
        _NOWHERE if energy is None else f"{energy * 1000:.3g} mJ",
    ]


def measure(
    what: Sequence[str | Path | nn.Module],
    size: int | None,
    channels: int | None,
    output: str | Path | None,
    *,
    other_machine: bool,
) -> Measured:
    """See `limbeck.measure`."""
    stored = [each for each in what if isinstance(each, str | Path) and Path(each).suffix == ".json"]
    others = {str(path): _stored(Path(path), other_machine=other_machine) for path in stored}
    subjects = [found for each in what if each not in stored for found in _subjects(each, size, channels)]
    if not subjects:
        raise RequestError("nothing to measure", fix="limbeck measure RUN, a model or a file")
    named = _named(subjects)
    threads = (1, torch.get_num_threads())
    makers = {name: subject.maker() for name, subject in named.items()}
    runtimes = {name: subject.runtime for name, subject in named.items()}
    found = in_rounds(makers, runtimes, BATCHES, threads)
    models = {
        name: {"latency": [cell.stored() for cell in found[name]], **_costs(subject)}
        for name, subject in named.items()
    }
    measured = Measured(models, machine.facts(), others)
    if output is not None:
        _write(Path(output), measured)
    return measured


def _write(path: Path, measured: Measured) -> None:
    try:
        path.write_text(json.dumps(measured.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(
            f"{path} cannot be written: {error.strerror}", fix="--output with another file"
        ) from error


def _stored(path: Path, *, other_machine: bool) -> dict[str, Any]:
    """Figures that were stored by `--output`.

    Raises:
        RequestError: they are none, or of another machine without the word that this is meant.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        theirs = told["machine"]["processor"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{path} holds no figures of limbeck measure", fix="limbeck measure RUN --output figures.json"
        ) from error
    if theirs != timing.processor() and not other_machine:
        raise RequestError(
            f"{path} was measured on {theirs}, this is {timing.processor()}: figures of two machines say "
            "nothing about two models",
            fix="--other-machine, if that is meant",
        )
    return dict(told)


def _named(subjects: Sequence[Subject]) -> dict[str, Subject]:
    """By a name each; equal names are numbered."""
    found: dict[str, Subject] = {}
    for subject in subjects:
        name, number = subject.name, 1
        while name in found:
            number += 1
            name = f"{subject.name} {number}"
        found[name] = subject
    return found


def _costs(subject: Subject) -> dict[str, Any]:
    made: dict[str, Any] = {"batch_inputs": _shapes(subject.inputs)}
    if subject.counted:
        made["parameters"] = timing.parameters(subject.network)
        made["operations"] = cost.operations(subject.network, subject.inputs)
    memory = None
    if subject.path is not None:
        weights = subject.path / "model.safetensors" if subject.path.is_dir() else subject.path
        made |= {"bytes": timing.file_size(weights), "compressed_bytes": cost.compressed_size(weights)}
        memory = cost.fresh_memory(subject.kind, subject.path, _arrays(subject.inputs))
    runtime, peak = memory or (None, None)
    made |= {"memory_bytes": peak, "runtime_memory_bytes": runtime}
    return {**made, "energy_joules": cost.energy(subject.maker()(1, 1))}


def _shapes(inputs: Any) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in _by_name(inputs).items()}


def _by_name(inputs: Any) -> dict[str, torch.Tensor]:
    return dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}


def _arrays(inputs: Any) -> dict[str, Any]:
    return {name: value.numpy() for name, value in _by_name(inputs).items()}


def _of_batch(inputs: Any, number: int) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _of_batch(value, number) for name, value in inputs.items()}
    return inputs[:1].repeat(number, *[1] * (inputs.ndim - 1))


# -- what is measured -------------------------------------------------------------------------------------


def _subjects(what: str | Path | nn.Module, size: int | None, channels: int | None) -> list[Subject]:
    torch_name = f"torch {torch.__version__.partition('+')[0]}"
    if isinstance(what, nn.Module):
        return [Subject(type(what).__name__, what.eval(), _pictures(size, channels), torch_name)]
    path = Path(what)
    if path.suffix in (".onnx", ".pt2"):
        return [_file(path, size, channels)]
    if path.is_dir():
        folder = RunFolder(path)
        if folder.is_run:
            return _of_run(folder, torch_name)
        return [_of_student(load(path), path.name, torch_name)]
    network, inputs = layering.made_up(str(what), size, channels)
    return [Subject(str(what), network.eval(), inputs[:1] if torch.is_tensor(inputs) else inputs, torch_name)]


def _of_run(folder: RunFolder, runtime: str) -> list[Subject]:
    """Teachers, the student (alone it is the same network) and the files."""
    student = _of_student(finished.student(folder), "student", runtime)
    found = []
    for name, network in finished.teachers(folder).items():
        path = folder.path / name
        own = path if path.is_dir() else None
        found.append(Subject(name, network, student.inputs, runtime, "student" if own else "", own))
    paths = finished.exported(folder)
    return [*found, student, *(_file(path, None, None) for path in paths)]


def _of_student(loaded: Loaded, name: str, runtime: str) -> Subject:
    return Subject(name, loaded.network, _inputs_of(loaded), runtime, "student", loaded.folder)


def _inputs_of(loaded: Loaded) -> Any:
    """One sample as the training data gave it, made up."""
    reading, built = loaded.reading, loaded.architecture
    if reading["kind"] == "image":
        return torch.rand(1, reading["channels"], *reading["size"])
    if not built.channels:
        words = layering.words(1)
        if "names" in reading:
            return dict.fromkeys(reading["names"], words["input_ids"])
        return words if check_spec(built.spec).source == "hf" else words["input_ids"]
    return torch.rand(1, built.channels, *built.size)


def _file(path: Path, size: int | None, channels: int | None) -> Subject:
    network, facts = files.open_file(path)
    kind = "onnx" if path.suffix == ".onnx" else "program"
    if facts is not None and facts.preprocessing.kind == "image" and facts.preprocessing.size:
        inputs: Any = torch.rand(1, facts.preprocessing.channels, *facts.preprocessing.size)
    elif facts is not None and facts.reading["kind"] == "image":
        wanted = facts.preprocessing.channels or facts.reading["channels"]
        inputs = torch.rand(1, wanted, *facts.reading["size"])
    elif facts is not None and len(facts.names) > 1:
        inputs = {name: torch.ones(1, 8, dtype=torch.long) for name in facts.names}
    elif facts is not None and facts.reading["kind"] == "row":
        width = sum(max(len(column["categories"]), 1) for column in facts.reading["columns"])
        inputs = torch.rand(1, width)
    else:
        inputs = _pictures(size, channels)
    return Subject(path.name, network, inputs, network.runtime, kind, path, counted=False)


def _pictures(size: int | None, channels: int | None) -> torch.Tensor:
    return torch.rand(1, channels or 3, size or _SIDE, size or _SIDE)
