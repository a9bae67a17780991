"""Weights and students that are damaged, of another kind or version, or that would need code to be run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.bad_input.cases import Case, Files


class Owned:
    """An object that makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        """What a pickle of it does when it is read."""
        return os.mkdir, ("owned",)


def _saved(name: str, **how: bool) -> Files:
    def write(folder: Path) -> None:
        import torch

        torch.save({"conv.weight": torch.zeros(2), "more": Owned()}, folder / name, **how)

    return write


def _whole_network(folder: Path) -> None:
    import torch
    from torch import nn

    torch.save(nn.Linear(2, 2), folder / "whole.pth")


def _bytes(name: str) -> Files:
    return lambda folder: (folder / name).write_bytes(b"\x80\x04K\x01.") and None


def _student(folder: Path) -> None:
    import torch

    from limbeck.models import prepare, save_student

    made = prepare("cnn-tiny", num_classes=10, inputs=torch.rand(2, 1, 28, 28))
    save_student(folder / "old" / "student", made.network, architecture=made.architecture)


def changed(name: str, position: int) -> Files:
    def write(folder: Path) -> None:
        _student(folder)
        path = folder / "old" / "student" / name
        content = bytearray(path.read_bytes())
        content[position] ^= 0x01
        path.write_bytes(content)

    return write


def without(name: str) -> Files:
    def write(folder: Path) -> None:
        _student(folder)
        (folder / "old" / "student" / name).unlink()

    return write


def newer(folder: Path) -> None:
    import json

    from limbeck._seal import seal

    _student(folder)
    path = folder / "old" / "student" / "config.json"
    config = json.loads(path.read_text())
    config["limbeck"]["format"] = 7
    path.write_text(seal(config, indent=2))


def _pickled_bert(folder: Path) -> None:
    import torch
    import transformers

    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=50
    )
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(folder / "bert")
    torch.save({"more": Owned()}, folder / "bert" / "pytorch_model.bin")


MODEL, CONFIG = "old/student/model.safetensors", "old/student/config.json"
CODE = "to read that would be to run code"

CASES = [
    Case(
        "student-weights-with-code",
        CODE,
        "save the weights alone",
        "--set student.weights=own.pt",
        sets=["student.weights=own.pt"],
        files=_saved("own.pt"),
    ),
    Case(
        "old-pickle-with-code",
        CODE,
        "save the weights alone",
        sets=["student.weights=own.bin"],
        files=_saved("own.bin", _use_new_zipfile_serialization=False),
    ),
    Case("whole-network", CODE, "state_dict()", sets=["teacher.weights=whole.pth"], files=_whole_network),
    Case(
        "pickled-transformer",
        "holds more than weights; to read that would be to run code",
        "safetensors",
        words=["layers", "hf:bert"],
        files=_pickled_bert,
    ),
    Case(
        "plain-pickle",
        "own.pkl is no file of weights",
        ".pt",
        sets=["student.weights=own.pkl"],
        files=_bytes("own.pkl"),
    ),
    Case(
        "exported-program",
        "own.pt2 is no file of weights",
        ".pt",
        sets=["student.weights=own.pt2"],
        files=_bytes("own.pt2"),
    ),
    Case(
        "onnx-for-weights",
        "own.onnx is no file of weights",
        ".pt",
        sets=["student.weights=own.onnx"],
        files=_bytes("own.onnx"),
    ),
    Case(
        "no-weights-at-all",
        "own.pt is damaged",
        "copy or download",
        sets=["student.weights=own.pt"],
        files=lambda folder: (folder / "own.pt").write_bytes(b"") and None,
    ),
    Case(
        "student-with-other-weights",
        f"{MODEL} is damaged: its checksum is not the one in config.json",
        "copy or download",
        "--set student.weights=old/student",
        sets=["student.weights=old/student"],
        files=changed("model.safetensors", -1),
    ),
    Case(
        "file-of-a-student-with-other-weights",
        f"{MODEL} is damaged: its checksum is not the one in config.json",
        "copy or download",
        sets=[f"teacher.weights={MODEL}"],
        files=changed("model.safetensors", -1),
    ),
    Case(
        "student-with-edited-config",
        f"{CONFIG} is damaged or was edited",
        "copy the whole folder",
        sets=["student.model=old/student"],
        files=changed("config.json", 40),
    ),
    Case(
        "student-with-edited-config-for-weights",
        f"{CONFIG} is damaged or was edited",
        "copy the whole folder",
        sets=["student.weights=old"],
        files=changed("config.json", 40),
    ),
    Case(
        "student-without-weights",
        f"there is no file {MODEL}",
        "copy the whole folder",
        words=["layers", "old/student"],
        files=without("model.safetensors"),
    ),
    Case(
        "student-without-config",
        "holds no student: there is no config.json",
        "a finished run",
        words=["layers", "old/student"],
        files=without("config.json"),
    ),
    Case(
        "student-of-a-newer-version",
        f"{CONFIG} has format 7; this limbeck reads up to 1",
        "the limbeck that wrote it, or a newer one",
        sets=["teacher.weights=old/student"],
        files=newer,
    ),
    Case(
        "student-of-another-size",
        "size = (20, 20): the network in old/student takes (28, 28)",
        "leave it out",
        sets=["student.model=old/student", "student.size=20"],
        files=_student,
    ),
]
