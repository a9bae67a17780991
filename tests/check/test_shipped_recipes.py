"""No false alarm: the recipes of the package have no finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck import check
from limbeck._recipe.shelf import recipe_names
from limbeck._run.screen import silent

OWN_DATA = [name for name in recipe_names() if name.startswith("fashion-")]


def test_quickstart_has_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = check("quickstart", screen=silent())
    assert not done.findings, done.text()
    assert done.figures["scores"]["samples"] == 512
    assert "teacher" not in done.figures["scores"]  # it is yet to be trained
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OWN_DATA)
def test_recipes_with_embedded_data_have_no_finding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In smaller batches of less data, so that it takes a second."""
    monkeypatch.chdir(tmp_path)
    smaller = ["train.batch_size=32", "data.limit=2000"]
    done = check(name, overrides=smaller, screen=silent())
    assert not done.findings, done.text()
