from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from limbeck.engine import checkpoint
from limbeck.errors import RequestError, RunError

FILES = ("tensors.safetensors", "state.json", "manifest.json")


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


def test_every_flipped_byte_is_found_and_its_file_named(tmp_path):
    path = _write(tmp_path)
    for file in FILES:
        content = (path / file).read_bytes()
        for position, byte in enumerate(content):
            for flipped in (byte ^ 0x01, byte ^ 0x80, 0x0A if byte != 0x0A else 0x0D):
                (path / file).write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
                with pytest.raises(RequestError) as caught:
                    checkpoint.read(path)
                assert caught.value.message.startswith(f"{path / file} is damaged"), position
        (path / file).write_bytes(content)
    checkpoint.read(path)


def test_every_shortened_and_lengthened_file_is_found_and_named(tmp_path):
    path = _write(tmp_path)
    for file in FILES:
        content = (path / file).read_bytes()
        wrong = [content[:length] for length in range(len(content))] + [content + b"\n", content + content]
        for changed in [*wrong, content[:7] + content[8:]]:
            (path / file).write_bytes(changed)
            with pytest.raises(RequestError) as caught:
                checkpoint.read(path)
            assert caught.value.message.startswith(f"{path / file} is damaged")
            assert str(tmp_path) in caught.value.fix
        (path / file).unlink()
        with pytest.raises(RequestError, match=f"has no {file}"):
            checkpoint.read(path)
        (path / file).write_bytes(content)


def test_files_of_two_checkpoints_do_not_mix(tmp_path):
    path = _write(tmp_path)
    other = checkpoint.write(tmp_path, "last-00000002", {"a": torch.zeros(3, 4)}, {"step": 4})
    for file in FILES[:2]:
        content = (path / file).read_bytes()
        (path / file).write_bytes((other / file).read_bytes())
        with pytest.raises(RequestError, match=f"{file} is damaged"):
            checkpoint.read(path)
        (path / file).write_bytes(content)


def test_a_newer_format_is_refused_with_both_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = _write(tmp_path)
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(RequestError, match="has format 2; this limbeck reads up to 1"):
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
