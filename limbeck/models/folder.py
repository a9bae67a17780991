"""The folder of a finished student: model.safetensors, config.json, a model card; whole or not there at all.

Students from timm and Hugging Face lie in the layout that their own libraries load; what limbeck adds stands
in the same config.json: `classes`, `preprocessing`, and `limbeck` with the rest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

import limbeck
from limbeck._taps.paths import plain
from limbeck.errors import RequestError, RunError
from limbeck.models import intact, layouts
from limbeck.models.building import PRETRAINED, Architecture, Plan, Raw, Wanted, without
from limbeck.models.card import CardFacts, write_card
from limbeck.models.intact import CARD, CONFIG
from limbeck.models.loaded import Loaded
from limbeck.models.preprocessing import Preprocessed, Preprocessing
from limbeck.models.registry import make, source_of
from limbeck.models.weights import FILE, fill


def save_student(
    folder: str | Path,
    network: nn.Module,
    *,
    architecture: Architecture,
    classes: Sequence[str] | None = None,
    kind: str = "classes",
    reading: Mapping[str, Any] | None = None,
    facts: CardFacts | None = None,
) -> Path:
    """Writes a student's folder. It is loaded once before it gets its name, so it can be loaded.

    Args:
        folder: replaced if it is there.
        network: with its preprocessing; wrappers of compilation and data parallelism do not matter.
        architecture: what builds it again, from `Built`.
        classes: names of its outputs.
        kind: what the output means, as `Task.kind`.
        reading: how a raw sample becomes an input, as `Splits.reading`.
        facts: for the model card.

    Raises:
        RequestError: the architecture builds another network than this one.
        RunError: the folder cannot be written; nothing is left behind.
    """
    target = Path(folder)
    network = plain(network)
    if not isinstance(network, Preprocessed):
        network = Preprocessed(network, Preprocessing())
    about = {
        "version": limbeck.__version__,
        "kind": kind,
        "reading": dict(reading or {"kind": "tensor"}),
        "architecture": architecture.to_dict(),
    }
    draft = target.parent / f".{target.name}.draft"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _write(draft, network, architecture, list(classes or []), about, facts or CardFacts())
        load(draft, run_code=True)
        _replace(target, draft)
    except OSError as error:
        raise RunError(
            f"the student could not be written to {target}: {error.strerror or error}",
            fix="make room, or choose another --output",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _write(
    draft: Path,
    network: Preprocessed,
    architecture: Architecture,
    classes: Sequence[str],
    about: dict[str, Any],
    facts: CardFacts,
) -> None:
    source = source_of(architecture.spec)
    config: dict[str, Any]
    if source == "hf":
        config = layouts.hugging_face(draft, network, classes)
        if about["reading"].get("tokenizer"):
            layouts.tokenizer(draft, about["reading"]["tokenizer"])
    else:
        about["tied"] = layouts.write_weights(draft / FILE, network.body)
        config = (
            layouts.timm(network, architecture, classes)
            if source == "timm"
            else {"architecture": architecture.spec, "num_classes": architecture.num_classes}
        )
    config |= {"classes": list(classes), "preprocessing": network.preprocessing.to_dict()}
    intact.write_config(draft, config, about)
    library = {"hf": "transformers", "timm": "timm"}.get(source, "limbeck")
    card = write_card(
        facts,
        library=library,
        inputs=str(about["reading"]["kind"]),
        kind=about["kind"],
        classes=classes,
        loading=layouts.loading(source, about["reading"]["kind"]),
    )
    (draft / CARD).write_text(card, encoding="utf-8")
    for file in draft.iterdir():
        _flush(file)


def _replace(target: Path, draft: Path) -> None:
    """Gives the draft its name; a folder that is there goes only when the new one stands."""
    old = target.parent / f".{target.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(draft, target)
    _flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def load(path: str | Path, *, run_code: bool = False) -> Loaded:
    """A finished student, ready to predict.

    Args:
        path: its folder, or that of its run.
        run_code: lets a student of a `module:function` import a module that does not lie in this folder.

    Returns:
        The network in eval with its preprocessing, class names and `predict`.

    Raises:
        RequestError: there is no student, or a file of it is damaged; the message names it.
    """
    folder = _student_folder(path)
    config = intact.check(folder)
    about = config["limbeck"]
    architecture = Architecture.from_dict(about["architecture"])
    raw = _build(folder, architecture, about.get("tied", {}), run_code)
    network = Preprocessed(raw.network, Preprocessing.from_dict(config["preprocessing"]))
    return Loaded(
        network=network.requires_grad_(False).eval(),
        classes=config["classes"] or [str(number) for number in range(architecture.num_classes)],
        kind=about["kind"],
        reading=about["reading"],
        architecture=architecture,
        folder=folder,
        notes=raw.notes,
    )


def _build(folder: Path, architecture: Architecture, tied: Mapping[str, str], run_code: bool) -> Raw:
    """The network of a folder with its weights; what was tied is tied."""
    source = source_of(architecture.spec)
    if source == "hf":
        # Its configuration lies in the folder, with the options in it; only its library knows all the names.
        raw = make(Architecture(f"hf:{folder}", architecture.num_classes, size=architecture.size))
        if raw.notes:
            raise RequestError(f"the weights in {folder} do not fit its {CONFIG}: {raw.notes[0]}")
        return raw
    options = without(architecture.options, PRETRAINED)
    raw = make(replace(architecture, options=options), run_code=run_code)
    layouts.tie(raw.network, tied)
    fill(raw.network, folder / FILE)
    return raw


def as_raw(folder: Path, num_classes: int) -> Raw:
    """The network of a student's folder, to train on or to teach.

    Raises:
        RequestError: it has another number of outputs.
    """
    loaded = load(folder)
    _check_outputs(folder, loaded.architecture, num_classes)
    network = loaded.network.body.requires_grad_(True).train()
    return Raw(network, loaded.classes, loaded.notes)


def _check_outputs(folder: Path, architecture: Architecture, needed: int) -> None:
    if architecture.num_classes != needed:
        raise RequestError(
            f"the network in {folder} has {architecture.num_classes} outputs, the data need {needed}"
        )


def plan(folder: Path, wanted: Wanted) -> Plan:
    """The architecture and preprocessing of a student's folder; pictures come in the size that it knows.

    Raises:
        RequestError: it has another number of outputs; or another size or other channels are asked for.
    """
    planned = _plan(_student_folder(folder), wanted)
    _check_outputs(folder, planned.architecture, wanted.num_classes)
    return planned


def _plan(folder: Path, wanted: Wanted) -> Plan:
    config = intact.read_config(folder)
    architecture = Architecture.from_dict(config["limbeck"]["architecture"])
    own = Preprocessing.from_dict(config["preprocessing"])
    for name, value, given in (
        ("size", wanted.size, architecture.size),
        ("channels", wanted.channels, architecture.channels),
    ):
        if value is not None and value != given:
            raise RequestError(f"{name} = {value}: the network in {folder} takes {given}", fix="leave it out")
    if own.kind == "image" and len(architecture.size) == 2:
        height, width = architecture.size
        same = architecture.size == wanted.sample.size
        own = replace(own, size=None if same else (height, width))
    return Plan(architecture, own)


def plan_of_weights(folder: Path, wanted: Wanted) -> Plan | None:
    """As `plan`; None for a folder that no student of ours lies in."""
    found = next((each for each in (folder, folder / "student") if intact.is_student(each)), None)
    return None if found is None else _plan(found, wanted)


def _student_folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    for candidate in (folder, folder / "student"):
        if (candidate / CONFIG).is_file():
            return candidate
    if not folder.exists():
        raise RequestError(f"there is no folder {folder}", fix="the folder of a run, or its student/")
    raise RequestError(f"{folder} holds no student: there is no {CONFIG}", fix="the folder of a finished run")


def _flush(path: Path) -> None:
    """To disk, so that a power cut leaves a whole file or none."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
