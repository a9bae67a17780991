"""pytorch/pytorch#25162: evaluation on two processes counts padding twice."""

from __future__ import annotations

import torch

from limbeck.engine import evaluate
from limbeck.engine.evaluation import statistics
from limbeck.task import Classification
from tests.engine.tiny import data, mlp
from tests.processes import run_processes

SCRIPT = """
import sys
import torch
from limbeck.engine.evaluation import statistics
from limbeck.task import Classification
from tests.engine.tiny import data, mlp
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
torch.save(statistics(mlp(), data(21), Classification(3), batch_size=4), f"{sys.argv[1]}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_evaluation_without_duplicates(tmp_path):
    """21 samples on two processes: each once, in order, and the same score."""
    run_processes(SCRIPT, tmp_path)
    alone = statistics(mlp(), data(21), Classification(3))
    for rank in (0, 1):
        theirs = torch.load(tmp_path / f"{rank}.pt")
        assert len(theirs["target"]) == 21
        for name, value in alone.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-6, atol=1e-6)
        assert Classification(3).score(theirs)["accuracy"] == evaluate(mlp(), data(21))["accuracy"]
