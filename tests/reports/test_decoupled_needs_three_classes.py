"""Decoupled distillation of two classes: its non-target term is always 0, so half the method is silent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.methods import KD
from limbeck.record import Record
from limbeck.task import Classification
from tests.check.faults import checked


def test_refused_where_the_number_of_classes_is_known() -> None:
    with pytest.raises(RequestError, match="2 classes; it needs at least 3"):
        KD(nn.Identity(), nn.Identity(), variant="decoupled", task=Classification(["no", "yes"]))


def test_refused_at_the_first_batch_otherwise() -> None:
    method = KD(nn.Identity(), nn.Identity(), variant="decoupled", warmup=0)
    logits, targets = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    with pytest.raises(RequestError, match="non-target term is 0"):
        method.losses(Record(logits), Record(logits), {"inputs": logits, "targets": targets})


def test_the_card_says_so() -> None:
    assert any("at least 3 classes" in need for need in KD.card.needs)


def test_check_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = checked("decoupled-of-two", tmp_path)
    assert "K117" in [each.code for each in done.findings], done.text()
