"""Runs of MHKD: heads are trained, counted and gone from what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from limbeck import Run, distill
from limbeck._run.screen import silent

RECIPE = """name = "tiny"
[data]
source = "fashion-small"
limit = 120
[teacher]
model = "cnn-tiny"
train = { epochs = 1 }
[student]
model = "cnn-tiny"
options = { widths = [4, 4, 8, 8] }
[method]
name = "mhkd"
width = 4
[train]
epochs = 2
batch_size = 32
[machine]
threads = 1
[export]
to = []
"""


def heads(*widths: int) -> int:
    """Parameters of heads of width 4 with two Linear layers and ten outputs, on maps of these widths."""
    after = 2 * 4 + (9 * 4 * 4 + 4) + 2 * 4 + (4 * 4 + 4) + (4 * 10 + 10)
    return sum(9 * width * 4 + 4 + after for width in widths)


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        (["method.teacher_heads=joint"], heads(4, 4, 8, 8) + heads(16, 32, 48, 80)),
        (["method.teacher_heads=pretrained"], heads(4, 4, 8, 8) + heads(16, 32, 48, 80)),
        (["method.target=logits"], heads(4, 4, 8, 8)),
        (["method.target=logits", 'method.taps={student=["layer2"]}'], heads(8)),
    ],
    ids=["joint", "pretrained", "logits", "one layer named"],
)
def test_a_run_counts_its_heads_and_keeps_the_student_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPE, encoding="utf-8")
    run = distill("mine.toml", overrides=settings, screen=silent())
    phase = next(each for each in run.figures["phases"] if each["name"] == "distil")
    assert phase["cost"]["extra_parameters"] == number
    networks = run.figures["networks"]
    assert networks["distilled"]["parameters"] == networks["alone"]["parameters"]
    assert not any("branches" in name for name in stored(run))


def stored(run: Run) -> list[str]:
    """Names of the values of the saved student."""
    with safe_open(run.folder / "student" / "model.safetensors", "pt") as file:
        return list(file.keys())
