"""A student's folder that is not as it was written is refused by the file's name, wherever it is used."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from limbeck._seal import seal
from limbeck.errors import RequestError
from limbeck.models import Preprocessing, load, prepare, save_student

ROWS = torch.rand(3, 2)


@pytest.fixture
def student(tmp_path):
    made = prepare("mlp", num_classes=2, inputs=ROWS, options={"widths": [2]})
    return save_student(
        tmp_path / "student", made.network, architecture=made.architecture, classes=["no", "yes"]
    )


def uses(student):
    """Every way in which a student's folder enters: to predict, as a network, as weights."""
    return (
        lambda: load(student),
        lambda: prepare(str(student), num_classes=2, inputs=ROWS),
        lambda: prepare("mlp", num_classes=2, inputs=ROWS, options={"widths": [2]}, weights=student),
    )


def refused(use, file):
    with pytest.raises(RequestError) as caught:
        use()
    assert str(file) in caught.value.message
    assert caught.value.fix
    return caught.value.message


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_every_flipped_or_missing_byte_is_found(student, file):
    path = student / file
    content = path.read_bytes()
    for position, byte in enumerate(content):
        flipped = content[:position] + bytes([byte ^ 0x04]) + content[position + 1 :]
        for changed in (flipped, content[:position] + content[position + 1 :]):
            path.write_bytes(changed)
            refused(lambda: load(student), path)
    path.write_bytes(content)
    load(student)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_no_use_goes_past_the_check(student, file):
    path = student / file
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x01]) + content[position + 1 :])
        for use in uses(student):
            refused(use, path)
    for length in range(1, len(content), len(content) // 20):
        path.write_bytes(content[:length])
        refused(uses(student)[0], path if b'"limbeck": {' in content[:length] else student)


def test_missing_files_are_named(student):
    content = (student / "model.safetensors").read_bytes()
    (student / "model.safetensors").unlink()
    for use in uses(student)[:2]:
        refused(use, student / "model.safetensors")
    (student / "model.safetensors").write_bytes(content)
    (student / "config.json").unlink()
    refused(uses(student)[0], "config.json")


def test_weights_of_the_same_shapes_are_not_taken_for_those_that_were_written(student):
    other = {name: value + 1 for name, value in load_file(student / "model.safetensors").items()}
    save_file(other, student / "model.safetensors", metadata={"format": "pt"})
    for use in uses(student):
        assert "checksum is not the one in config.json" in refused(use, student / "model.safetensors")


def test_the_card_may_be_edited(student):
    (student / "README.md").write_text("mine", encoding="utf-8")
    for use in uses(student):
        use()


def test_a_newer_format_is_refused_with_both_versions(student):
    config = json.loads((student / "config.json").read_text())
    config["limbeck"]["format"] = 99
    (student / "config.json").write_text(seal(config, indent=2))
    for use in uses(student):
        assert "has format 99; this limbeck reads up to 1" in refused(use, student / "config.json")


def test_the_folder_of_another_tool_is_no_student(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "not written by limbeck" in refused(lambda: load(tmp_path), tmp_path)


def test_preprocessing_is_sealed_too(student):
    text = (student / "config.json").read_text()
    assert Preprocessing.from_dict(json.loads(text)["preprocessing"])
    (student / "config.json").write_text(text.replace('"yes"', '"yet"'))
    refused(uses(student)[0], student / "config.json")
