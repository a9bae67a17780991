from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.speed import kd_step, loops, rival
from benchmarks.speed.kd_step import Size, course_of, main, measure
from benchmarks.speed.turns import Told, Turn, in_turn, ratios
from limbeck.models.cifar import cifar_resnet

TINY = Size(rounds=2, warmup=1, samples=32, teacher=8, batch=16)
ROWS = set(kd_step.ROWS)


def test_every_row_of_a_pair_has_its_figures() -> None:
    found = measure("shufflenet", TINY)
    assert set(found["ratio_to_plain_fp32"]) == set(found["seconds"]) == set(found["spread"]) == ROWS
    assert found["ratio_to_plain_fp32"]["plain"] == 1.0
    assert found["first_losses"]["usual_live"] == found["first_losses"]["cached_fp32"]


def test_a_network_that_gains_nothing_stays_in_float32() -> None:
    machine, why = loops.by_rule(kd_step.student_of("shufflenet"), course_of(TINY))
    assert machine.precision == "fp32"
    assert why


def test_losses_by_hand_and_of_limbeck_stay_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, teacher = (cifar_resnet(num_classes=100, depth=8) for _ in range(2))
    course = loops.Course(course_of(TINY).data, 2, 16, rate=1e-3)

    class Kept(Told):
        def __init__(self) -> None:
            self.weights: list[torch.Tensor] = []

        def epoch(self, student: nn.Module) -> None:
            self.weights = [value.detach().clone() for value in student.parameters()]

    hand, ours = Kept(), Kept()
    loops.by_hand(student, teacher.eval(), course)(hand)
    loops.with_limbeck(student, teacher, course, tmp_path / "cache", kd_step.Machine(device="cpu"))(ours)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(hand.weights, ours.weights, strict=True))


def test_without_the_rival_its_rows_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(rival.FOLDER)])
    rows = ["--pairs", "resnet", "--rounds", "2", "--warmup", "1"]
    tiny = [*rows, "--samples", "32", "--teacher", "8", "--batch", "16"]
    file = tmp_path / "result.json"
    assert main([*tiny, "--torchdistill", str(tmp_path / "none"), "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert set(found["ratio_to_plain_fp32"]) == ROWS
    assert set(found["pairs"]) == {"resnet"}
    assert found["versions"]["torchdistill"] is None
    assert found["machine"]["cores"]
    assert "pip install --no-deps" in capsys.readouterr().err


@pytest.mark.skipif(rival.version() is None, reason=rival.HOW)
def test_the_rival_has_the_same_loss() -> None:
    found = measure("resnet", TINY, [*kd_step.ROWS, *kd_step.RIVAL])
    assert {"torchdistill", "torchdistill_bf16"} < set(found["seconds"])


def endless(told: Told) -> None:
    while True:
        told.step(1.0)


def short(told: Told) -> None:
    told.step(2.0)


def test_turns_alternate_and_end() -> None:
    seconds, losses = in_turn({"a": endless, "b": endless}, rounds=3, warmup=1)
    assert [len(values) for values in seconds.values()] == [3, 3]
    assert losses == {"a": 1.0, "b": 1.0}


def test_a_loop_that_ends_too_early_is_an_error() -> None:
    turn = Turn(short)
    assert turn.take()[1] == 2.0
    with pytest.raises(RuntimeError, match="before its last turn"):
        turn.take()
    turn.end()


def test_ratios_are_of_medians() -> None:
    found = ratios({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 60.0]}, "a")
    assert found["ratio"] == {"a": 1.0, "b": 2.0}
    assert found["seconds"]["b"] == 4.0
