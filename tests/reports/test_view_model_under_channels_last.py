"""pytorch/benchmark#1367: a model that flattens with `view` after a convolution fails under channels_last.

Here: what is saved from a training in that layout loads and predicts in the plain one.
"""

from __future__ import annotations

import torch

from limbeck.models import load, prepare, save_student

MODULE = """
from torch import nn

class Viewing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 8 * 8, num_classes)
    def forward(self, x):
        x = self.conv(x)
        return self.fc(x.view(len(x), -1))
"""


def test_a_student_trained_in_channels_last_loads_in_the_plain_layout(tmp_path, monkeypatch):
    (tmp_path / "viewing_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    pixels = torch.rand(2, 3, 8, 8)
    built = prepare("viewing_net:Viewing", num_classes=5, inputs=pixels)
    expected = built.network(pixels)
    built.network.to(memory_format=torch.channels_last)
    reading = {"kind": "image", "channels": 3, "size": [8, 8]}
    save_student(tmp_path / "student", built.network, architecture=built.architecture, reading=reading)
    loaded = load(tmp_path / "student")
    torch.testing.assert_close(loaded.network(pixels), expected)
    assert len(loaded.predict(pixels)) == 2
