from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck._measure.timing import _percentile, file_size, latencies, latency, parameters, processor
from limbeck.errors import RequestError


def test_tied_parameters_count_once():
    head = nn.Linear(4, 8, bias=False)
    embedding = nn.Embedding(8, 4)
    head.weight = embedding.weight
    assert parameters(nn.ModuleList([embedding, head])) == 32
    assert parameters(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))) == 6 + 2 + 4


def test_sizes_count_all_files(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").write_bytes(b"x" * 5)
    assert file_size(tmp_path / "a") == 10
    assert file_size(tmp_path) == 15
    with pytest.raises(RequestError, match="no file"):
        file_size(tmp_path / "c")


def test_latency_carries_how_it_was_taken_and_calls_take_turns():
    order = []
    before = torch.get_num_threads()
    found = latencies(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=4, warmups=1, threads=1
    )
    assert order == ["a", "b", *["a", "b"] * 4]
    assert torch.get_num_threads() == before
    one = found["a"]
    assert (one.runs, one.warmups, one.batch, one.threads, one.processor) == (4, 1, 1, 1, processor())
    assert 0 <= one.median <= one.p95
    assert "4 runs after 1 warm-ups, batch 1, 1 thread, torch" in str(one)


def test_no_gradient_is_recorded_meanwhile():
    seen = []
    latency(lambda: seen.append(torch.is_grad_enabled()), runs=1, warmups=0)
    assert seen == [False]


def test_percentiles_are_values_that_were_measured():
    assert _percentile([float(i) for i in range(1, 101)], 0.95) == 95
    assert _percentile([3.0], 0.95) == 3


def test_no_runs_are_refused():
    with pytest.raises(RequestError, match="0 runs"):
        latency(lambda: None, runs=0)
