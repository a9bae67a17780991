"""huggingface/accelerate#2823, #4195: a resume in the middle of an epoch reads another order."""

from __future__ import annotations

import pytest

from limbeck.data.loader import Loader
from limbeck.engine import Training
from tests.engine.test_resume import run
from tests.engine.tiny import Supervised, data, mlp


def test_sample_ids_across_resume(tmp_path):
    """32 samples, batch 4, stopped after three batches of the first epoch."""
    settings = Training(epochs=2, batch_size=4)
    _, whole, _, _ = run(lambda: Supervised(mlp()), data(32), settings, tmp_path / "whole")
    _, first, _, _ = run(lambda: Supervised(mlp()), data(32), settings, tmp_path / "cut", after=3)
    _, rest, _, _ = run(lambda: Supervised(mlp()), data(32), settings, tmp_path / "cut", resume=True)
    seen = [index for _, index in first + rest]
    assert seen == [index for _, index in whole]
    for epoch in (seen[:8], seen[8:]):
        assert sorted(i for index in epoch for i in index) == list(range(32))
    assert seen[:8] != seen[8:]


@pytest.mark.parametrize("start", [0, 3])
def test_two_processes_read_the_halves_of_the_same_batches(start):
    def ids(**given):
        loader = Loader(data(32), 4, seed=1, epoch=1, start_batch=start, **given)
        return [micro["index"].tolist() for micros in loader for micro in micros]

    halves = zip(ids(rank=0, world=2), ids(rank=1, world=2), strict=True)
    assert [left + right for left, right in halves] == ids()
