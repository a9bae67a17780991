"""Runs side by side: grouped by setting, paired by seed, judged on validation data."""

from __future__ import annotations

import pytest

from limbeck._run.settings import Settings
from limbeck._run.verdicts import judge
from limbeck.errors import RequestError
from tests.report.runs import kept, network, told


def test_runs_that_differ_by_seed_are_one_row_with_mean_and_spread() -> None:
    settings = Settings.of([told(seed=seed, student=score) for seed, score in enumerate((0.78, 0.80, 0.82))])
    rows = {row.name: row for row in settings.models()}
    assert list(rows) == ["teacher big", "student alone", "student by kd"]
    assert rows["student by kd"].score == pytest.approx(0.80)
    assert rows["student by kd"].spread == pytest.approx(0.02)
    assert len(rows["teacher big"].scores) == 1  # the same in all runs
    assert rows["student by kd"].note == ""


def test_two_methods_are_paired_by_seed_with_alone_and_with_kd() -> None:
    runs = [told("kd", seed, student=0.80 + 0.01 * seed, alone=0.70) for seed in range(3)]
    runs += [told("semckd", seed, student=0.83 + 0.02 * seed, alone=0.70) for seed in (2, 0, 1)]
    found = {each.name: each for each in Settings.of(runs).helped()}
    assert list(found) == [
        "kd against the same student alone",
        "semckd against the same student alone",
        "semckd against kd",
    ]
    beside = found["semckd against kd"]
    assert dict(beside.differences) == pytest.approx({"seed 0": 0.03, "seed 1": 0.04, "seed 2": 0.05})
    assert beside.interval is not None
    assert beside.interval.mean == pytest.approx(0.04)
    assert beside.interval.half == pytest.approx(4.303 * 0.01 / 3**0.5)


def test_plain_runs_stand_for_the_student_alone() -> None:
    runs = [told("semckd", seed, student=0.8, alone=None) for seed in range(2)]
    runs += [told("plain", seed, student=0.7 + 0.1 * seed, alone=None, teacher=None) for seed in range(2)]
    settings = Settings.of(runs)
    (only,) = settings.helped()
    assert [value for _, value in only.differences] == pytest.approx([0.1, 0.0])
    assert only.interval is None
    assert [row.name for row in settings.models()] == ["teacher big", "student by semckd", "student alone"]


def test_one_seed_has_an_interval_over_its_samples_where_answers_were_kept() -> None:
    with_answers, without = (Settings.of([told(evidence=held)]).helped()[0] for held in (kept(), None))
    assert with_answers.interval is not None
    assert 0.02 < with_answers.interval.half < 0.05
    assert "1,000 samples" in with_answers.how
    assert without.interval is None


def test_a_setting_is_not_its_name_seed_or_machine() -> None:
    one, other = told(seed=0), told(seed=1)
    other.run["recipe"]["machine"] = {"threads": 7}  # type: ignore[index]
    other.run["recipe"]["name"] = "another"  # type: ignore[index]
    assert one.setting == other.setting
    other.run["recipe"]["method"]["temperature"] = 2.0  # type: ignore[index]
    assert one.setting != other.setting
    settings = Settings.of([one, other])
    assert [settings.label(group) for group in settings.groups] == ["kd (runs/kd-0)", "kd (runs/kd-1)"]
    other.run["name"] = "another"  # type: ignore[index]
    assert [settings.label(group) for group in settings.groups] == ["kd (drawn)", "kd (another)"]


def test_other_data_and_other_machines_are_said() -> None:
    data = {"source": "some", "fingerprint": "e" * 64, "classes": ["a", "b"]}
    machine = {"processor": "another", "used": "cpu, 2 threads, bf16"}
    notes = " ".join(
        Settings.of([told(), told("semckd", changes={"data": data, "machine": machine})]).notes()
    )
    assert "not on the same data" in notes
    assert "another: cpu, 2 threads, bf16" in notes
    score = {"split": "test", "kind": "values", "name": "r2", "samples": 9}
    other = told("semckd", changes={"score": score})
    with pytest.raises(RequestError, match="accuracy and r2"):
        Settings.of([told(), other])


def test_no_difference_to_kd_on_other_data() -> None:
    data = {"source": "other", "fingerprint": "e" * 64, "classes": ["a", "b"]}
    found = Settings.of([told(), told("semckd", changes={"data": data})]).helped()
    assert "semckd against kd" not in [each.name for each in found]


def test_the_verdict_is_about_the_setting_that_validation_data_prefer() -> None:
    lucky = told("semckd", student=0.95)
    lucky.run["networks"]["distilled"]["validation"] = {"accuracy": 0.6}
    verdict = judge(Settings.of([told("kd", student=0.8), lucky])).verdict
    assert verdict.startswith("The student by kd is 20 x smaller and 4.0 x faster than its teacher")
    assert verdict.endswith(
        "keeps 88.9 % of its accuracy and scores 10.0 points above the same student alone."
    )


def test_one_seed_and_a_tie_are_warned_about() -> None:
    one = judge(Settings.of([told()])).warnings
    assert any(text.startswith("One seed; a difference below") for text in one)
    tied = [told(seed=seed, student=0.7 + (-1) ** seed * 0.01) for seed in range(4)]
    warnings = judge(Settings.of(tied)).warnings
    assert any(text.startswith("A tie") for text in warnings)
    assert not any(text.startswith("One seed") for text in warnings)


def test_without_teacher_the_numbers_are_the_students_own() -> None:
    judged = judge(Settings.of([told("plain", alone=None, teacher=None)]))
    assert judged.verdict == "The student reaches 80.0 % accuracy."
    assert [number.value for number in judged.numbers] == ["80.0 %", "1,000", "1.00 ms"]


def test_scores_that_are_no_shares() -> None:
    score = {"split": "test", "kind": "values", "name": "r2", "samples": 9}
    networks = {"distilled": network(0.8), "alone": network(0.9)}
    judged = judge(Settings.of([told(changes={"score": score, "networks": networks})]))
    assert judged.verdict == "The student scores 0.100 below the same student alone."
    assert judged.numbers[-1].value == "-0.100"


def test_curves_of_a_teacher_that_is_shared_are_drawn_once() -> None:
    runs = [told("kd"), told("semckd")]
    entry = {"phase": "teacher 0", "terms": {}, "scores": {"student": {"accuracy": 0.5}}}
    runs = [type(run)(run.folder, run.run, None, [entry, *run.metrics]) for run in runs]
    names = [curve.name for curve in Settings.of(runs).validation()]
    assert names.count("teacher") == 1
    assert len(Settings.of(runs).terms()) == 2
