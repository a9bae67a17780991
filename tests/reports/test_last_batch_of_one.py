"""fastai/fastai#1352: a last batch of one sample kills batch normalisation after an epoch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import check
from limbeck._run.screen import silent
from limbeck.data.loader import Loader
from limbeck.engine import Training, fit
from tests.engine.test_resume import equal_after_stop, run
from tests.engine.tiny import Supervised, cnn, pictures


def pooled() -> nn.Module:
    return nn.Sequential(cnn()[:6], nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 3))


@pytest.mark.parametrize("samples", [17, 33])
def test_last_batch_of_one(samples):
    """The odd sample joins the batch before, by a rule that the number of steps agrees with."""
    loader = Loader(pictures(samples), 8, seed=0)
    sizes = [len(micro["index"]) for (micro,) in loader]
    assert sizes == [8] * (samples // 8 - 1) + [9]
    assert loader.num_batches == len(sizes)
    fit(Supervised(pooled()), pictures(samples), settings=Training(epochs=1, batch_size=8))


def test_resume_agrees_with_the_rule(tmp_path):
    equal_after_stop(
        lambda: Supervised(pooled()), pictures(17), Training(epochs=3, batch_size=8), tmp_path, after=3
    )
    _, steps, _, _ = run(
        lambda: Supervised(pooled()), pictures(17), Training(epochs=1, batch_size=8), tmp_path / "n"
    )
    assert len(steps) == 2


def odd():
    return (torch.randn(65, 3, 8, 8), torch.arange(65) % 4), (torch.randn(16, 3, 8, 8), torch.arange(16) % 4)


def test_check_says_it_before_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        f'name = "odd"\n[data]\nsource = "{__name__}:odd"\n[student]\nmodel = "tests.check.planted:maps"\n'
        '[method]\nname = "plain"\n[train]\nbatch_size = 64\n[export]\nto = []\n'
    )
    done = check("mine.toml", screen=silent())
    assert not done.errors, done.text()
    assert "65 samples in batches of 64: the odd one joins the last batch, which has 65" in done.notes
