from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from limbeck.engine import checkpoint
from limbeck.errors import RequestError, RunError


def _write(folder: Path) -> Path:
    shared = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": shared, "b": shared, "c": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    return checkpoint.write(folder, "last-00000001", tensors, {"step": 3, "rate": 0.1, "names": ["x"]})


def test_what_is_written_is_read_and_shared_memory_is_stored_once(tmp_path):
    path = _write(tmp_path)
    tensors, state = checkpoint.read(path)
    assert state == {"step": 3, "rate": 0.1, "names": ["x"]}
    assert torch.equal(tensors["a"], torch.arange(12.0).reshape(3, 4))
    assert tensors["a"].data_ptr() == tensors["b"].data_ptr()
    assert (path / "tensors.safetensors").stat().st_size < 12 * 4 + 120 * 4 + 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last-00000001"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "SHA256SUMS"])
def test_every_flipped_byte_is_found_and_named(tmp_path, file):
    path = _write(tmp_path)
    content = (path / file).read_bytes()
    for position in range(0, len(content), max(len(content) // 60, 1)):
        damaged = bytearray(content)
        damaged[position] ^= 0x04
        (path / file).write_bytes(damaged)
        with pytest.raises(RequestError, match=r"damaged") as caught:
            checkpoint.read(path)
        assert str(path) in str(caught.value)
    (path / file).write_bytes(content)
    checkpoint.read(path)


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "SHA256SUMS"])
def test_missing_and_shortened_files_are_named(tmp_path, file):
    path = _write(tmp_path)
    content = (path / file).read_bytes()
    (path / file).write_bytes(content[:-1])
    with pytest.raises(RequestError, match="damaged"):
        checkpoint.read(path)
    (path / file).unlink()
    with pytest.raises(RequestError, match=file):
        checkpoint.read(path)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        checkpoint.write(tmp_path / "file", "last-1", {}, {})


@pytest.mark.parametrize(
    "value",
    [
        Counter({30: 1, 60: 2}),
        {"betas": (0.9, 0.999), "none": None, 3: [1, 2.5, True]},
        float("inf"),
        [float("-inf"), "text"],
    ],
)
def test_plain_values_survive_with_their_types(value):
    again = checkpoint.decode(checkpoint.encode(value))
    assert again == value
    assert type(again) is type(value)


def test_a_value_that_cannot_be_stored_is_refused():
    with pytest.raises(RequestError, match="cannot be stored"):
        checkpoint.encode({"x": object()})
