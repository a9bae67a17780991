"""What a cache is for: a fingerprint of the teacher, its layers, the data, their views and the store."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from limbeck._cache.fields import Store
from limbeck._cache.shards import alive
from limbeck.data.dataset import Dataset, digest
from limbeck.data.derived import Augmented
from limbeck.errors import RequestError
from limbeck.taps import untapped

#: Raised when the meaning of a file or of a key changes: caches of another format are refused by name.
FORMAT = 1
_FILE = "key.json"

#: What differs, in words, by part of a key.
_WORDS = {
    "format": "another format of caches",
    "weights": "other weights of the teacher",
    "structure": "another structure of the teacher",
    "preprocessing": "another preprocessing of the teacher",
    "layers": "other layers",
    "samples": "another number of samples",
    "data": "other data",
    "views": "another augmentation",
    "store": "another store",
}

Key = Mapping[str, Any]


def key_of(model: nn.Module, layers: Sequence[str], data: Dataset, store: Store) -> Key:
    """All that the answers of a cache depend on, by part; what differs is found by comparing two keys."""
    network = untapped(model)
    views, plain = (data.views.describe(), data.base) if isinstance(data, Augmented) else ("", data)
    return {
        "format": FORMAT,
        "weights": digest("weights", dict(network.state_dict())),
        "structure": digest("structure", *_structure(network)),
        "preprocessing": digest("preprocessing", *_preprocessing(network)),
        "layers": sorted(layers),
        "samples": len(data),
        "data": plain.fingerprint(),
        "views": views,
        "store": store.described(),
    }


def _structure(network: nn.Module) -> list[str]:
    """Every module with its class and settings; what else its code does is seen by comparing answers."""
    return [f"{path} {type(m).__qualname__} {m.extra_repr()}" for path, m in network.named_modules()]


def _preprocessing(network: nn.Module) -> list[Any]:
    """What a network does with its inputs: its own description, and buffers that are not in its state."""
    kept = set(network.state_dict())
    buffers = {name: value for name, value in network.named_buffers() if name not in kept}
    own = [vars(module) for module in network.modules()]
    return [buffers, *(str(each["preprocessing"]) for each in own if "preprocessing" in each)]


def short(key: Key) -> str:
    """Twelve hexadecimal digits that stand for a key."""
    return digest("key", json.dumps(key, sort_keys=True))[:12]


def differences(one: Key, other: Key) -> list[str]:
    """The parts in which two keys differ, in words."""
    return [words for part, words in _WORDS.items() if one.get(part) != other.get(part)]


def written(folder: Path) -> dict[str, Any] | None:
    """What the key file of a folder holds; None where there is no folder, or an empty one.

    Raises:
        RequestError: the folder is something else, or the file is damaged.
    """
    path = folder / _FILE
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir() and not any(folder.iterdir()):
            return None
        if folder.exists():
            raise RequestError(
                f"{folder} is no teacher cache: it has no {_FILE}", fix="another folder"
            ) from None
        return None
    try:
        content = json.loads(text)
        whole = _bytes(content["key"], content["record"]) == text
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise RequestError(
            f"{path} is damaged: its checksum is wrong",
            fix="restore it, or delete the folder and write it again",
        )
    found: dict[str, Any] = content
    return found


def claim(folder: Path, key: Key, record: Mapping[str, Any]) -> None:
    """Makes the folder of a cache with its key; of two that try, the first one wins, whole.

    Raises:
        OSError: it cannot be written.
    """
    for left in folder.parent.glob(f".{folder.name}.*.draft"):
        if not alive(int(left.suffixes[-2][1:])):
            shutil.rmtree(left, ignore_errors=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    draft.mkdir(parents=True)
    try:
        (draft / _FILE).write_bytes(_bytes(key, record))
        try:
            os.rename(draft, folder)
        except OSError:
            if not (folder / _FILE).is_file():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def compare(folder: Path, stored: Key, wanted: Key) -> None:
    """Refuses a cache that was written for something else.

    Raises:
        RequestError: names the parts that differ.
    """
    parts = differences(stored, wanted)
    if not parts:
        return
    more = ""
    if "samples" in wanted and stored.get("samples") != wanted["samples"]:
        more = f"; it holds {stored.get('samples'):,} samples, the data have {wanted['samples']:,}"
    if stored.get("layers") != wanted["layers"]:
        more = f"; it holds the layers {stored.get('layers')}, needed {wanted['layers']}"
    if stored.get("format") != FORMAT:
        parts, more = parts[:1], f"; it has {stored.get('format')}, this limbeck reads {FORMAT}"
    raise RequestError(
        f"the cache {folder} was written for {' and '.join(parts)}{more}",
        fix="another folder, or delete this one",
    )


def _bytes(key: Key, record: Mapping[str, Any]) -> bytes:
    """The one way to write a key file, so that any other byte is a damage."""
    content = {"key": key, "record": record, "checksum": digest(json.dumps([key, record], sort_keys=True))}
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("ascii")
