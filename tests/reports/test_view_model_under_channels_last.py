"""pytorch/benchmark#1367: a model that flattens with `view` after a convolution fails under channels_last.

Here: a student that does so trains in the plain layout, said in one line, to the same weights as where that
layout is asked for; what is saved from a training in channels_last loads and predicts in the plain one.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

from limbeck import Teacher
from limbeck._run.screen import silent
from limbeck.engine import Machine, Training, fit
from limbeck.methods.kd import KD
from limbeck.models import load, prepare, save_student
from limbeck.run import distill

MODULE = """
import torch
from torch import nn

class Viewing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 8 * 8, num_classes)
    def forward(self, x):
        x = self.conv(x)
        return self.fc(x.view(len(x), -1))

def data():
    pixels = torch.randint(0, 255, (60, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels, labels = pixels.to(torch.uint8), torch.arange(60) % 3
    return tuple((pixels[a:b], labels[a:b]) for a, b in ((0, 36), (36, 48), (48, 60)))
"""

RECIPE = """name = "viewing"
[data]
source = "viewing_net:data"
[teacher]
model = "cnn-tiny"
train = { epochs = 1 }
[student]
model = "viewing_net:Viewing"
[train]
epochs = 2
batch_size = 12
[machine]
threads = 1
[export]
to = []
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "viewing_net.py").write_text(MODULE, encoding="ascii")
    (tmp_path / "mine.toml").write_text(RECIPE, encoding="ascii")
    monkeypatch.delitem(sys.modules, "viewing_net", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_run_falls_back_with_one_line_and_an_equal_result(place):
    run = distill("mine.toml", screen=silent())
    notes = [note for note in run.figures["plan"]["notes"] if "channels_last" in note]
    assert len(notes) == 1
    assert notes[0].startswith("contiguous, not channels_last: the student fails in it (view size")
    assert run.figures["machine"]["choices"]["layout"] == "contiguous"
    plain = distill("mine.toml", overrides=["machine.layout=contiguous"], output="plain", screen=silent())
    one, other = ((r.folder / "student" / "model.safetensors").read_bytes() for r in (run, plain))
    assert one == other


def test_a_student_trained_in_channels_last_loads_in_the_plain_layout(place):
    pixels = torch.rand(2, 3, 8, 8)
    built = prepare("viewing_net:Viewing", num_classes=5, inputs=pixels)
    expected = built.network(pixels)
    built.network.to(memory_format=torch.channels_last)
    reading = {"kind": "image", "channels": 3, "size": [8, 8]}
    save_student(place / "student", built.network, architecture=built.architecture, reading=reading)
    loaded = load(place / "student")
    torch.testing.assert_close(loaded.network(pixels), expected)
    assert len(loaded.predict(pixels)) == 2


def test_a_teacher_answers_alike_in_whatever_layout_its_pictures_come(place):
    pixels = torch.rand(16, 3, 8, 8)
    teacher = Teacher(prepare("viewing_net:Viewing", num_classes=5, inputs=pixels).network)
    turned = pixels.contiguous(memory_format=torch.channels_last)
    assert torch.equal(teacher(turned).output, teacher(pixels).output)
    result = fit(
        KD(prepare("cnn-tiny", num_classes=5, inputs=pixels).network, teacher),
        (pixels, torch.arange(16) % 5),
        settings=Training(epochs=1, batch_size=8),
        machine=Machine(layout="channels_last"),
    )
    assert result.history[-1]["terms"]["soft"] > 0


def test_a_live_teacher_that_views_falls_back_with_one_line_and_an_equal_answer(place, caplog):
    pixels = torch.rand(16, 3, 8, 8)
    network = prepare("viewing_net:Viewing", num_classes=5, inputs=pixels).network
    quick = Teacher(network, fast=["fold", "channels_last"])
    with caplog.at_level(logging.WARNING, logger="limbeck"):
        answers = [quick(pixels).output for _ in range(2)]
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("the teacher runs without channels_last: it fails with it (view size")
    assert all(torch.equal(answer, Teacher(network)(pixels).output) for answer in answers)
