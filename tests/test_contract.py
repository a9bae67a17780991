"""The contract over every registered method, and that it finds what breaks it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from limbeck import Losses, contract
from limbeck.method import Method
from limbeck.methods import METHODS, resolve
from limbeck.methods.plain import Plain


@pytest.mark.parametrize("check", contract.CHECKS)
@pytest.mark.parametrize("slug", METHODS)
def test_every_method_keeps_the_contract(slug, check):
    contract.CHECKS[check](resolve(slug))


class Whole(Plain):
    """Trains all its parameters on every sample, as a method does by default."""

    def stages(self):
        return Method.stages(self)


class Unequal(Whole):
    """The total is not the sum."""

    def losses(self, student, teacher, batch):
        losses = super().losses(student, teacher, batch)
        losses.total = losses.total * 2
        return losses


class Frozen(Whole):
    """A parameter that never gets a gradient."""

    def __init__(self, student, teacher=None, *, task=None):
        super().__init__(student, task=task)
        self.unused = torch.nn.Linear(2, 2)


class Random(Whole):
    """Draws from the clock."""

    def losses(self, student, teacher, batch):
        import time

        losses = super().losses(student, teacher, batch)
        noise = float(time.time_ns() % 1000) / 1000
        return Losses({"hard": losses.terms["hard"] * (1 + noise)}, {"hard": 1.0})


class Forgetful(Whole):
    """What it counts is in no state."""

    def __init__(self, student, teacher=None, *, task=None):
        super().__init__(student, task=task)
        self.seen = 0

    def losses(self, student, teacher, batch):
        self.seen += 1
        losses = super().losses(student, teacher, batch)
        return Losses(losses.terms, {"hard": 1.0 / self.seen})


class Incomplete(Whole):
    """A hyper-parameter that the card does not name."""

    def __init__(self, student, teacher=None, *, task=None, strength: float = 1.0):
        super().__init__(student, task=task)
        self.strength = strength


class MeanOfBatch(Whole):
    """Divides by its own batch, whatever the loop counts."""

    def losses(self, student, teacher, batch):
        without = {name: value for name, value in batch.items() if name != "count"}
        return super().losses(student, teacher, without)


class Shared(Whole):
    """Deploys what trains."""

    def deployable(self):
        return self.student


class Drifting(Whole):
    """Trains the teacher along."""

    card = dataclasses.replace(Plain.card, teacher="outputs")

    def losses(self, student, teacher, batch):
        with torch.no_grad():
            next(self.teacher.model.parameters()).add_(1e-3)
        return super().losses(student, teacher, batch)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Unequal, "losses_are_weighted_sums"),
        (Frozen, "gradients_reach_exactly_what_trains"),
        (Random, "the_same_seed_is_the_same_run"),
        (Forgetful, "a_stopped_run_goes_on_to_the_same_bits"),
        (Incomplete, "card_is_complete"),
        (MeanOfBatch, "micro_batches_equal_one_batch"),
        (MeanOfBatch, "two_processes_equal_one"),
        (Shared, "the_deployable_is_clean"),
        (Drifting, "the_teacher_stays_out"),
    ],
)
def test_what_breaks_a_promise_is_found(broken, check):
    with pytest.raises(contract.Broken):
        contract.CHECKS[check](broken)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "limbeck.contract", *arguments]
    root = {"PYTHONPATH": str(Path(contract.__file__).parents[1])}
    environment = {**__import__("os").environ, **root}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_a_method_of_ones_own_is_checked_from_the_command_line(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from limbeck.methods.plain import Plain\n"
        "class Mine(Plain):\n"
        '    "Mine."\n'
        "class Wrong(Plain):\n"
        "    def __init__(self, student, teacher=None, *, task=None, extra=1):\n"
        "        super().__init__(student, task=task)\n"
    )
    said = run(tmp_path, "mine:Mine")
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.splitlines()[-1] == "11 passed, 0 failed"
    said = run(tmp_path, "mine:Nothing")
    assert said.returncode == 2
    assert "no subclass of limbeck.Method" in said.stderr
    assert "Traceback" not in said.stderr
