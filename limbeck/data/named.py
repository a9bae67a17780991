"""Sets by name, from the files that their usual packages leave on disk."""

from __future__ import annotations

import codecs
import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data import places
from limbeck.data.assembly import Options, assemble
from limbeck.data.dataset import ArrayDataset, Dataset, Splits
from limbeck.errors import RequestError
from limbeck.task import Classification

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

#: Where the Debian package dataset-fashion-mnist puts its files.
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(name: str, options: Options) -> Splits:
    """Fashion-MNIST: 60,000 training and 10,000 test pictures of 28x28, grey."""
    folders = [
        *(root / below for root in places.roots(options.root) for below in ("", name, "FashionMNIST/raw")),
        _DEBIAN,
    ]
    stems = {"train": "train", "test": "t10k"}
    wanted = [f"{stem}-{kind}-ubyte" for stem in stems.values() for kind in ("images-idx3", "labels-idx1")]
    for ending in ("", ".gz"):
        found = places.first_with(folders, [file + ending for file in wanted])
        if found is not None:
            parts = {part: read_idx_pair(found, stem, ending) for part, stem in stems.items()}
            return _pictures(name, parts, FASHION_CLASSES, options)
    raise places.not_found(
        name,
        [str(folder) for folder in folders],
        "apt install dataset-fashion-mnist, or data.root = the folder where torchvision keeps FashionMNIST",
    )


def read_idx_pair(folder: Path, stem: str, ending: str) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 1, H, W] and labels [N] of one part in the format of MNIST."""
    images = _read_idx(folder / f"{stem}-images-idx3-ubyte{ending}", dimensions=3)
    labels = _read_idx(folder / f"{stem}-labels-idx1-ubyte{ending}", dimensions=1)
    if len(images) != len(labels):
        raise RequestError(f"{folder}: {len(images)} pictures and {len(labels)} labels of {stem}")
    return images[:, None], labels.long()


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of bytes: magic 0x0800 + dimensions, sizes as big-endian numbers, values."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        magic, *sizes = struct.unpack_from(f">{1 + dimensions}I", raw)
        values = np.frombuffer(raw, np.uint8, offset=4 * (1 + dimensions)).reshape(sizes)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise RequestError(f"{path} is damaged: {error}", fix="fetch the file again") from error
    if magic != 0x0800 + dimensions:
        raise RequestError(f"{path} is no IDX file of bytes in {dimensions} dimensions", fix="fetch it again")
    return torch.from_numpy(values.copy())


def cifar(name: str, options: Options) -> Splits:
    """CIFAR-10 or CIFAR-100 (fine labels): 50,000 training and 10,000 test pictures of 32x32."""
    ten = name == "cifar10"
    folder = "cifar-10-batches-py" if ten else "cifar-100-python"
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    files = files if ten else {"train": ["train"], "test": ["test"]}
    meta, names, labels = ("batches.meta", "label_names", "labels")
    if not ten:
        meta, names, labels = ("meta", "fine_label_names", "fine_labels")
    folders = [
        root / below for root in places.roots(options.root) for below in (folder, "", f"{name}/{folder}")
    ]
    found = places.first_with(folders, [*files["train"], *files["test"], meta])
    if found is None:
        looked = [str(path) for path in folders] or [f"{folder}/ in data.root or {places.ENVIRONMENT}"]
        raise places.not_found(
            name, looked, f"data.root = the folder that holds {folder}, as torchvision unpacks it"
        )
    parts = {part: _read_cifar([found / file for file in listed], labels) for part, listed in files.items()}
    return _pictures(name, parts, _entry(found / meta, names), options)


def _read_cifar(paths: list[Path], labels: str) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 3, 32, 32] and labels [N] of the batches of one part."""
    pixels = [np.asarray(_entry(path, "data"), dtype=np.uint8).reshape(-1, 3, 32, 32) for path in paths]
    numbers = [np.asarray(_entry(path, labels), dtype=np.int64) for path in paths]
    return torch.from_numpy(np.concatenate(pixels)), torch.from_numpy(np.concatenate(numbers))


def _entry(path: Path, key: str) -> Any:
    content = read_pickled_arrays(path)
    if not isinstance(content, Mapping) or key not in content:
        raise RequestError(f"{path} has no entry {key!r}", fix="fetch the file again")
    return content[key]


def read_pickled_arrays(path: Path) -> Any:
    """A pickle of arrays, texts, lists and mappings; one that names anything else is refused unrun."""
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError, LookupError) as error:
        raise RequestError(f"{path} is not a file of plain arrays: {error}", fix="fetch it again") from error


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes; other encodings are not asked for by arrays."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes by {encoding}")
    return codecs.encode(text, "latin1")


#: All that the pickle of an array needs; numpy renamed the first module in version 2.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only what arrays are made of."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def _pictures(
    name: str, parts: Mapping[str, tuple[Tensor, Tensor]], classes: Any, options: Options
) -> Splits:
    sets: dict[str, Dataset] = {part: ArrayDataset(*content) for part, content in parts.items()}
    shape = parts["train"][0].shape[1:]
    reading = {"kind": "image", "channels": shape[0], "size": list(shape[1:])}
    return assemble(name, sets, Classification([str(label) for label in classes]), options, reading=reading)
