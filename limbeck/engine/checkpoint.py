"""Checkpoints: one folder each, tensors in safetensors, the rest JSON, checksums, renamed into place.

A sealed `manifest.json` holds the format and the SHA-256 of the other files: whatever is damaged is named.
"""

from __future__ import annotations

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

from limbeck._seal import check_version, checksum, seal, text_of, unseal
from limbeck.errors import RequestError, RunError

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
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
        content = {"aliases": aliases, "state": encode(state)}
        (draft / _STATE).write_text(json.dumps(content), encoding="ascii")
        sums = {file: checksum(draft / file) for file in (_TENSORS, _STATE)}
        manifest = seal({"format": FORMAT, "sha256": sums})
        (draft / _MANIFEST).write_text(manifest, encoding="ascii", newline="\n")
        for file in (_TENSORS, _STATE, _MANIFEST):
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


def read(path: Path, fix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Tensors and state of a checkpoint, after its checksums have been compared.

    Args:
        path: its folder.
        fix: what to do where it cannot be used.

    Raises:
        RequestError: a file is missing, damaged or of a newer format; the message names it.
    """
    fix = fix or f"restore the file, or remove {path.parent}: its training then starts again"
    for file in (_TENSORS, _STATE, _MANIFEST):
        if not (path / file).is_file():
            raise RequestError(f"the checkpoint {path} has no {file}", fix=fix)
    manifest = unseal(text_of(path / _MANIFEST, fix), path / _MANIFEST, fix)
    check_version(path, "format", manifest["format"], FORMAT)
    for file, wanted in manifest["sha256"].items():
        if checksum(path / file) != wanted:
            raise RequestError(
                f"{path / file} is damaged: its checksum is not the one in {_MANIFEST}", fix=fix
            )
    content = json.loads((path / _STATE).read_text(encoding="ascii"))
    tensors = load_file(path / _TENSORS)
    for name, source in content["aliases"].items():
        tensors[name] = tensors[source]
    return tensors, decode(content["state"])


def all_of(folder: Path, kind: str) -> list[Path]:
    """The checkpoints of a kind ("last", "chosen") in a folder by their running number, the newest last."""
    return sorted(folder.glob(f"{kind}-*")) if folder.is_dir() else []


def newest(folder: Path, kind: str) -> Path | None:
    """The newest checkpoint of a kind ("last", "chosen") in a folder, by its running number."""
    found = all_of(folder, kind)
    return found[-1] if found else None


def prune(folder: Path, kind: str, keep: Path | None) -> None:
    """Removes the other checkpoints of a kind, and drafts that a kill left behind."""
    for path in [*folder.glob(f"{kind}-*"), *folder.glob(f".{kind}-*.draft")]:
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


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
