from __future__ import annotations

from benchmarks.speed.semckd_step import measure


def test_a_step_written_by_hand_has_the_same_losses() -> None:
    found = measure(rounds=2, warmup=0)
    assert found["largest_relative_difference_of_losses"] < 1e-5
    assert set(found["seconds"]) == {"limbeck", "by_hand"}
