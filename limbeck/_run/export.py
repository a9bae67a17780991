"""Files for the device: written, compared with the network, scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._export import files, int8
from limbeck._export.facts import Facts
from limbeck._export.onnx import Exported as Written
from limbeck._export.onnx import export_onnx
from limbeck._export.program import export_program
from limbeck._export.tracing import Traced
from limbeck._measure.timing import processor
from limbeck._recipe.sections import Export
from limbeck._run.folder import RunFolder
from limbeck._run.session import Session
from limbeck._show import figures
from limbeck.data.dataset import Dataset
from limbeck.engine.evaluation import statistics
from limbeck.errors import RunError
from limbeck.models.preprocessing import Preprocessed

#: Loads the ONNX files without limbeck; its text is a module of the package.
SCRIPT = "exports/run_onnx.py"
WORSE = 0.01  # of a score, lost to int8, from which it is called worse

_BATCH = 256
_COLLAPSE = 0.9  # of all samples in one class, which a file answers
_ONLY = 0.5  # where the network answers it for less than this part of that


@dataclass
class Exported:
    """A file for the device.

    Args:
        key: of run.json and of the closing table, as "onnx".
        file: in the folder of the run.
        runtime: what runs it.
        network: the file as a network, with one thread.
        about: what run.json says of it.
    """

    key: str
    file: str
    runtime: str
    network: nn.Module
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """What is to be exported, and on which data it is looked at.

    Args:
        session: of the run.
        folder: of the run.
        network: the distilled student.
        data: that the closing table is about.
        wanted: formats and options.
    """

    session: Session
    folder: RunFolder
    network: nn.Module
    data: Dataset
    wanted: Export

    @property
    def compared(self) -> Dataset:
        """The whole validation set, on which a file is compared; of a run without one, training."""
        return self.session.splits.validation or self.session.splits.train

    @property
    def in_graph(self) -> bool:
        """Whether files hold the preprocessing."""
        return self.wanted.preprocessing == "graph"

    def facts(self) -> Facts:
        """What is written into every file."""
        splits = self.session.splits
        return Facts(splits.classes or (), splits.task.kind, splits.reading)

    def where(self, kind: str) -> Path:
        """The folder of a format."""
        return self.folder.path / "exports" / kind


def export(
    session: Session, folder: RunFolder, network: nn.Module, data: Dataset, wanted: Export | None = None
) -> tuple[list[Exported], list[str]]:
    """The files that are asked for; one that is not like its network, or loses too much, is not kept.

    Args:
        session: of the run.
        folder: of the run.
        network: the distilled student.
        data: that the closing table is about.
        wanted: formats and options; those of the recipe unless given.

    Returns:
        The files, and what went wrong with those that are missing.
    """
    order = Order(session, folder, network, data, wanted or session.recipe.export)
    made: list[Exported] = []
    failed: list[str] = []
    makers = [_MAKERS[kind] for kind in order.wanted.to]
    if "onnx" in order.wanted.to and order.wanted.int8:
        makers.append(_int8)
    for make in makers:
        try:
            made.append(make(order))
        except RunError as error:
            failed.append(str(error))
            if make is _MAKERS["onnx"]:
                break  # int8 is made from that file
    if any(each.key.startswith("onnx") for each in made):
        shutil.copyfile(Path(files.__file__).with_name("run_onnx.py"), folder.path / SCRIPT)
    return made, failed


def _onnx(order: Order) -> Exported:
    return _described(order, "onnx", _written(export_onnx, order, "onnx"))


def _torch(order: Order) -> Exported:
    return _described(order, "torch", _written(export_program, order, "torch"))


def _written(make: Callable[..., Written], order: Order, kind: str) -> Written:
    splits = order.session.splits
    return make(
        order.network,
        order.where(kind),
        splits.train.batch([0]),
        validation_batches=_batches(order.compared),
        task=splits.task,
        facts=order.facts(),
        in_graph=order.in_graph,
    )


def _described(order: Order, key: str, written: Written) -> Exported:
    """A file that agrees, with its scores."""
    made = _opened(order, key, written.path)
    made.about |= {
        "difference": written.difference,
        "compared_samples": written.samples,
        "note": f"differs by {written.difference:.0e}",
        "validation": _scores(order, made.network, order.compared),
    }
    return made


def _opened(order: Order, key: str, path: Path) -> Exported:
    loaded = files.ready(path)
    scores = _scores(order, loaded.network, order.data)
    name = path.relative_to(order.folder.path).as_posix()
    about = {
        "file": name,
        "dtype": "int8" if key.endswith("int8") else "float32",
        "score": scores[order.session.splits.task.score_name],
        "scores": scores,
        "bytes": path.stat().st_size,
        "preprocessing": order.wanted.preprocessing,
        "processor": processor(),
    }
    return Exported(key, name, runtime_of(loaded.network), loaded.network, about)


def runtime_of(network: nn.Module) -> str:
    """What runs a file that was opened, as "onnxruntime 1.32.0"."""
    assert isinstance(network, Preprocessed)
    assert isinstance(network.body, files.FileNetwork)
    return network.body.runtime


def _scores(order: Order, network: nn.Module, data: Dataset) -> dict[str, float]:
    task = order.session.splits.task
    return task.score(statistics(network, data, task))


# -- int8 -------------------------------------------------------------------------------------------------


def _int8(order: Order) -> Exported:
    """The int8 file; refused where it answers one class, or loses more than was allowed.

    Whether it is kept is decided on validation samples: the test set chooses nothing.
    """
    splits = order.session.splits
    train = splits.train
    number = min(order.wanted.calibration, len(train))
    places = torch.arange(number) * len(train) // number  # evenly over the set, whatever its order
    traced = Traced(order.network, train.batch([0]), splits.task, in_graph=order.in_graph)
    parts = (train.batch(part) for part in torch.split(places, _BATCH))
    path = int8.export_int8(order.where("onnx") / "model.onnx", traced, parts)
    try:
        made = _opened(order, "onnx_int8", path)
        made.about |= _lost(order, made.network)
    except RunError:
        path.unlink()
        raise
    made.about |= {"calibration_samples": number, "note": f"{number:,} to calibrate"}
    return made


def _lost(order: Order, network: nn.Module) -> dict[str, Any]:
    """What int8 costs on the validation samples.

    Raises:
        RunError: more than is allowed.
    """
    task = order.session.splits.task
    before, after = (statistics(each, order.compared, task) for each in (order.network, network))
    scores = [task.score(each) for each in (before, after)]
    lost = scores[0][task.score_name] - scores[1][task.score_name]
    found: dict[str, Any] = {"validation": scores[1], "validation_before": scores[0], "lost": lost}
    if task.kind == "classes":
        found |= _answers(order, before["predicted"], after["predicted"])
    allowed = order.wanted.max_drop
    if allowed is not None and lost * 100 > allowed:
        raise RunError(
            f"the int8 file loses {figures.points(task.kind, lost)} of validation score, more than "
            f"{allowed:g}, so it was not kept",
            fix="the float file, or a larger max_drop",
        )
    return found


def _answers(order: Order, before: Tensor, after: Tensor) -> dict[str, Any]:
    """Agreement and how often each class is answered.

    Raises:
        RunError: nearly all answers are one class, which the network answers far less often.
    """
    names = order.session.splits.classes or ()
    counts = [torch.bincount(each, minlength=len(names)) for each in (before, after)]
    shares = [each / max(int(each.sum()), 1) for each in counts]
    most = int(shares[1].argmax())
    if shares[1][most] > _COLLAPSE and shares[0][most] < _ONLY * shares[1][most]:
        name = names[most] if names else most
        raise RunError(
            f"the int8 file answers {name!r} for {shares[1][most]:.0%} of the validation samples, the "
            f"student for {shares[0][most]:.0%}, so it was not kept",
            fix="the float file: some values of this network are too large beside the others",
        )
    return {
        "agreement": float((before == after).double().mean()),
        "predicted_before": counts[0].tolist(),
        "predicted": counts[1].tolist(),
    }


def judge(found: Mapping[str, dict[str, Any]], kind: str) -> None:
    """Says of the int8 file in words whether it is slower or worse than the float file.

    Args:
        found: the networks of run.json, with their latency; changed.
        kind: of the task.
    """
    whole, small = found.get("onnx"), found.get("onnx_int8")
    if whole is None or small is None:
        return
    words = []
    if whole.get("latency_seconds") and small.get("latency_seconds"):
        small["speed"] = whole["latency_seconds"] / small["latency_seconds"]
        ratio = small["speed"]
        words.append(f"{ratio:.1f} x faster" if ratio > 1 else f"slower: {1 / ratio:.1f} x the time")
    lost = whole["score"] - small["score"]
    if lost > WORSE:
        words.append(f"worse: {figures.points(kind, lost)} lost")
    small["verdict"] = ", ".join(words)
    bad = [word.partition(":")[0] for word in words if ":" in word]
    if bad:
        small["note"] = f"{' and '.join(bad)} than float"


def _batches(data: Dataset) -> Iterator[Any]:
    for part in torch.split(torch.arange(len(data)), _BATCH):
        yield data.batch(part)


#: How each format is made, by its name in `export.to`; a further one is a further line.
_MAKERS: dict[str, Callable[[Order], Exported]] = {"torch": _torch, "onnx": _onnx}
