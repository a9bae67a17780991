"""Checkpoints: one folder each, tensors in safetensors, the rest JSON, checksums, renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from limbeck.errors import RequestError, RunError

_TENSORS, _STATE, _SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"
FORMAT = 1


def write(folder: Path, name: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Writes a checkpoint `folder/name`; it is there whole or not at all.

    Args:
        folder: where it is written; made if absent.
        name: of the checkpoint.
        tensors: by name; those that share their memory are stored once.
        state: whatever `encode` takes.

    Raises:
        RunError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    target, draft = folder / name, folder / f".{name}.draft"
    stored, aliases = _each_once(tensors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        save_file(stored, draft / _TENSORS)
        content = {"format": FORMAT, "aliases": aliases, "state": encode(state)}
        (draft / _STATE).write_text(json.dumps(content), encoding="ascii")
        (draft / _SUMS).write_text(_sums(draft), encoding="ascii")
        for file in (_TENSORS, _STATE, _SUMS):
            _flush(draft / file)
        shutil.rmtree(target, ignore_errors=True)  # a kill left it behind, and no state names it
        os.rename(draft, target)
        _flush(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise RunError(
            f"the checkpoint {target} could not be written: {error.strerror or error}",
            fix="make room or choose another --output; the checkpoint before it is kept",
        ) from error
    return target


def read(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors and state of a checkpoint, after its checksums have been compared.

    Raises:
        RequestError: a file is missing, damaged or of a newer format; the message names it.
    """
    for file in (_TENSORS, _STATE, _SUMS):
        if not (path / file).is_file():
            raise RequestError(f"the checkpoint {path} has no {file}", fix="start again without --resume")
    given = (path / _SUMS).read_bytes()
    for line, wanted in zip(_sums(path).splitlines(), given.decode("latin-1").splitlines(), strict=False):
        if line != wanted:
            raise RequestError(
                f"{path / line.split()[1]} is damaged: its checksum is not the one in {_SUMS}",
                fix="restore the file, or start again without --resume",
            )
    if given != _sums(path).encode():
        raise RequestError(f"{path / _SUMS} is damaged", fix="start again without --resume")
    content = json.loads((path / _STATE).read_text(encoding="ascii"))
    if content["format"] > FORMAT:
        raise RequestError(
            f"{path} is of format {content['format']}; this limbeck reads up to {FORMAT}",
            fix="a newer limbeck",
        )
    tensors = load_file(path / _TENSORS)
    for name, source in content["aliases"].items():
        tensors[name] = tensors[source]
    return tensors, decode(content["state"])


def newest(folder: Path, kind: str) -> Path | None:
    """The newest checkpoint of a kind ("last", "chosen") in a folder, by its running number."""
    found = sorted(folder.glob(f"{kind}-*")) if folder.is_dir() else []
    return found[-1] if found else None


def prune(folder: Path, kind: str, keep: Path | None) -> None:
    """Removes the other checkpoints of a kind, and drafts that a kill left behind."""
    for path in [*folder.glob(f"{kind}-*"), *folder.glob(f".{kind}-*.draft")]:
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def _sums(folder: Path) -> str:
    lines = []
    for file in (_TENSORS, _STATE):
        digest = hashlib.sha256()
        with open(folder / file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        lines.append(f"{digest.hexdigest()}  {file}\n")
    return "".join(lines)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _each_once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors to store and, for those that are the same memory as an earlier one, whose they are."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in owners:
            aliases[name] = owners[place]
            continue
        owners[place] = name
        stored[name] = tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return stored, aliases


def encode(value: Any) -> Any:
    """A value of nested mappings, sequences, numbers and text as JSON that `decode` returns unchanged.

    Raises:
        RequestError: a value of another type.
    """
    if isinstance(value, (Counter, dict, Mapping)):
        kind = "counter" if isinstance(value, Counter) else "map"
        return {kind: [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [encode(item) for item in value]}
    if isinstance(value, Tensor) and value.ndim == 0:
        return {"scalar": [str(value.dtype).removeprefix("torch."), value.item()]}
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    raise RequestError(f"a value of type {type(value).__name__} cannot be stored in a checkpoint: {value!r}")


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "scalar":
        return torch.tensor(content[1], dtype=getattr(torch, content[0]))
    if kind in ("tuple", "list"):
        items = [decode(item) for item in content]
        return tuple(items) if kind == "tuple" else items
    pairs = {decode(key): decode(item) for key, item in content}
    return Counter(pairs) if kind == "counter" else pairs
