"""M13, pytorch/pytorch#117758: a hook placed after the first compiled call is never called."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from limbeck.taps import Taps
from limbeck.task import Classification

TASK = Classification(2)


@pytest.fixture(autouse=True)
def _reset():
    yield
    torch.compiler.reset()


# dynamo looks at the gradient of what enters a compiled part, and silences this in a way that -W error undoes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("way", ["in place", "wrapped", "a part"])
def test_records_equal_eager_ones(way, caplog):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 2))
    batches = [{"inputs": torch.randn(3, 4)} for _ in range(3)]
    with torch.no_grad():
        expected = [Taps(network, ["1.0", "2.input"], task=TASK, trainable=False)(batch) for batch in batches]
    model = network
    if way == "in place":
        network.compile(fullgraph=True, backend="aot_eager")
    elif way == "a part":
        network[1].compile(fullgraph=True, backend="aot_eager")
    else:
        model = torch.compile(network, fullgraph=True, backend="aot_eager")
    model(batches[0]["inputs"])  # compiled without hooks
    with caplog.at_level(logging.WARNING, logger="limbeck"):
        tapped = Taps(model, ["1.0", "2.input"], task=TASK, trainable=True)
    assert sum(record.name.startswith("limbeck") for record in caplog.records) == 1
    for batch, eager in zip(batches, expected, strict=True):
        record = tapped(batch)
        torch.testing.assert_close(record.output, eager.output)
        for path in ("1.0", "2.input"):
            torch.testing.assert_close(record[path], eager[path])
            assert record[path].requires_grad
