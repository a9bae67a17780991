"""The commands that a finished run names work as they stand there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from limbeck import cli, distill
from limbeck._run import closing
from limbeck._run.screen import silent
from tests.test_run import RECIPE


def test_the_commands_that_are_named_next_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    Path("mine.toml").write_text(RECIPE, encoding="utf-8")
    Image.new("L", (28, 28), 128).save("YOURS.png")
    run = distill("mine.toml", overrides=["train.epochs=1"], screen=silent())
    commands = [command.split() for command, _ in closing.after(run.figures)]
    assert [words[1] for words in commands] == ["compare", "measure", "predict", "upload"]
    for words in commands[:-1]:
        with pytest.raises(SystemExit) as done:
            cli.main([*words[1:], *(["--dry-run"] if words[1] == "compare" else [])])
        assert done.value.code == 0, capsys.readouterr().err
    assert commands[-1][:2] == ["hf", "upload"]  # which nobody runs here
