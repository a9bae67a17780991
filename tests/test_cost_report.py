"""What a run says at its end of the time of a step, memory and extra parameters."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck._run.closing import cost_text
from limbeck.engine import Cost


def phase(name: str, *, extra: int | None = 0, scale: float = 1.0, steps: int = 10) -> dict[str, Any]:
    parts = {
        "data": 0.3,
        "teacher": 0.01,
        "student": 3.2,
        "loss": 0.4,
        "backward": 4.3,
        "optimizer": 0.8,
        "other": 0.1,
    }
    seconds = {name: scale * value / 1000 for name, value in parts.items()} if steps else {}
    return {"name": name, "cost": Cost(seconds, steps, 700_000_000, extra, 61_300).stored()}


def test_two_lines_say_it_all() -> None:
    text = cost_text({"phases": [phase("teacher 0"), phase("alone", scale=0.9), phase("distil")]})
    assert text.splitlines() == [
        "distil step 9.1 ms (alone 8.2): data 0.3, student 3.2, loss 0.4, backward 4.3,",
        "optimizer 0.8, other 0.1; 700 MB memory; 0 extra parameters",
    ]


@pytest.mark.parametrize("scale", [1e-2, 1e2, 1e3, 1e4])
def test_long_and_short_steps_keep_to_two_lines(scale: float) -> None:
    run = {"phases": [phase("alone", scale=scale), phase("distil", scale=scale, extra=12_345_678)]}
    lines = cost_text(run).splitlines()
    assert len(lines) <= 2
    assert max(map(len, lines)) <= 80


def test_what_is_not_known_is_left_out() -> None:
    assert cost_text({"phases": [phase("distil", steps=0)]}) == ""
    assert cost_text({"phases": [{"name": "distil", "seconds": 1.0}]}) == ""  # of an earlier version
    text = cost_text({"phases": [phase("distil", extra=None)]})
    assert "alone" not in text
    assert text.endswith("700 MB memory")
