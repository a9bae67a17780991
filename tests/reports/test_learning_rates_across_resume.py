"""huggingface/transformers#34053: rates repeat or start again after a resume."""

from __future__ import annotations

import pytest

from limbeck.engine import Training
from tests.engine.test_resume import run
from tests.engine.tiny import Supervised, data, mlp


@pytest.mark.parametrize("stopped_after", [1, 5, 9])
@pytest.mark.parametrize("schedule", ["CosineAnnealingLR", "OneCycleLR", "LinearLR"])
def test_learning_rates_across_resume(tmp_path, schedule, stopped_after):
    """Ten steps; the rates of k and of the rest are those of the uninterrupted run, for every k."""
    settings = Training(epochs=2, batch_size=4, learning_rate=0.1, schedule=schedule)

    def rates(steps):
        return [step[0]["student.student"] for step in steps]

    _, whole, _, _ = run(lambda: Supervised(mlp()), data(20), settings, tmp_path / "whole")
    _, first, _, _ = run(lambda: Supervised(mlp()), data(20), settings, tmp_path / "cut", after=stopped_after)
    _, rest, _, _ = run(lambda: Supervised(mlp()), data(20), settings, tmp_path / "cut", resume=True)
    assert len(whole) == 10
    assert rates(first + rest) == rates(whole)
    assert len(set(rates(whole))) > 1
