from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from limbeck.data import named
from limbeck.data.named import read_pickled_arrays
from limbeck.data.sources import load_source
from limbeck.errors import RequestError


def idx(values: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()


def write_fashion(folder: Path, ending: str) -> None:
    folder.mkdir(parents=True)
    for stem, number in (("train", 40), ("t10k", 20)):
        images = np.arange(number, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
        labels = (np.arange(number) % 10).astype(np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            raw = idx(values)
            path = folder / f"{stem}-{kind}-ubyte{ending}"
            path.write_bytes(gzip.compress(raw) if ending else raw)


@pytest.mark.parametrize(
    ("below", "ending"), [("", ".gz"), ("fashion-mnist", ".gz"), ("FashionMNIST/raw", "")]
)
def test_fashion_mnist_from_what_packages_leave(tmp_path: Path, below: str, ending: str) -> None:
    write_fashion(tmp_path / "data" / below, ending)
    splits = load_source("fashion-mnist", root=tmp_path / "data")
    assert [len(part) for part in splits.parts().values()] == [30, 10, 20]
    assert splits.classes is not None
    assert splits.classes[0] == "T-shirt/top"
    assert splits.test is not None
    batch = splits.test.batch([13])
    assert batch["targets"].tolist() == [3]
    assert float(batch["inputs"].max()) == pytest.approx(13 / 255)


def test_root_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / "fashion-mnist", "")
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path))
    assert len(load_source("fashion-mnist").train) == 30


def test_where_it_was_looked_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "_DEBIAN", tmp_path / "absent")
    with pytest.raises(RequestError, match="nothing is downloaded") as caught:
        load_source("fashion-mnist", root=tmp_path)
    assert str(tmp_path / "FashionMNIST/raw") in str(caught.value)
    assert "dataset-fashion-mnist" in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_absent_cifar_says_the_expected_place(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    for root in (tmp_path, None):
        with pytest.raises(RequestError, match=folder):
            load_source(name, root=root)


@pytest.mark.parametrize("damage", [b"", b"\x00\x00\x08\x03\x00", b"\x00\x00\x09\x03" + b"\x00" * 12])
def test_damaged_files_are_named(tmp_path: Path, damage: bytes) -> None:
    write_fashion(tmp_path / "d", "")
    (tmp_path / "d" / "train-images-idx3-ubyte").write_bytes(damage)
    with pytest.raises(RequestError, match="train-images-idx3-ubyte"):
        load_source("fashion-mnist", root=tmp_path / "d")


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes bytes and texts as Python 2 did, which is how the sets were published."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, value: Any) -> None:
        raw = value if isinstance(value, bytes) else value.encode()
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[bytes] = save_text
    dispatch[str] = save_text


def write_python2(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def write_cifar(root: Path, ten: bool) -> None:
    folder = root / ("cifar-10-batches-py" if ten else "cifar-100-python")
    folder.mkdir(parents=True)
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if ten else ["train", "test"]
    for number, file in enumerate(files):
        pixels = np.full((20, 3072), number, np.uint8)
        pixels[:, 0] = np.arange(20)
        labels = [i % 10 for i in range(20)]
        content = {"data": pixels, "labels" if ten else "fine_labels": labels}
        write_python2(folder / file, content)
    names = [f"class{i}" for i in range(10)]
    write_python2(
        folder / ("batches.meta" if ten else "meta"), {"label_names" if ten else "fine_label_names": names}
    )


@pytest.mark.parametrize(("name", "number"), [("cifar10", 90), ("cifar100", 10)])
def test_cifar_as_it_was_published(tmp_path: Path, name: str, number: int) -> None:
    write_cifar(tmp_path, name == "cifar10")
    splits = load_source(name, root=tmp_path)
    assert len(splits.train) == number
    assert splits.test is not None
    assert len(splits.test) == 20
    assert splits.classes == [f"class{i}" for i in range(10)]
    batch = splits.test.batch([13])
    assert batch["inputs"].shape == (1, 3, 32, 32)
    assert float(batch["inputs"][0, 0, 0, 0]) == pytest.approx(13 / 255)
    assert batch["targets"].tolist() == [3]


@pytest.mark.parametrize("protocol", [2, 4])
def test_newer_pickles_of_arrays_are_read_too(tmp_path: Path, protocol: int) -> None:
    content = {"data": np.arange(6).reshape(2, 3), "labels": [1, 2]}
    (tmp_path / "a").write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_pickled_arrays(tmp_path / "a")
    assert np.array_equal(read["data"], content["data"])


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("__import__('pathlib').Path('touched').write_text('x')",)


@pytest.mark.parametrize("content", [Evil(), {"data": Evil()}, Path("x"), torch.zeros(1)])
def test_a_pickle_that_asks_for_code_is_refused_unrun(
    tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(pickle.dumps(content))
    with pytest.raises(RequestError, match="asks for"):
        read_pickled_arrays(tmp_path / "a")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("raw", [b"", b"\x80\x02}", b"hello"])
def test_a_damaged_pickle_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(RequestError, match="not a file of plain arrays"):
        read_pickled_arrays(tmp_path / "a")
