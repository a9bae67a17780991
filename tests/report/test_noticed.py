"""Findings of finished runs: each by the figures that call for it, and none by good ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from limbeck._findings import CATALOGUE
from limbeck._run.noticed import noticed
from limbeck._run.settings import Settings
from tests.report.runs import kept, network, told


def phase(chosen: int, epochs: int, best: float, last: float) -> dict[str, Any]:
    return {
        "phases": [
            {
                "name": "distil",
                "chosen_epoch": chosen,
                "epochs": epochs,
                "chosen": {"student": {"accuracy": best}},
                "last": {"student": {"accuracy": last}},
            }
        ]
    }


def files(*, score: float, seconds: float) -> dict[str, Any]:
    int8 = {"score": score, "latency_seconds": seconds}
    networks = {
        "teacher": network(0.9),
        "alone": network(0.7),
        "distilled": network(0.8),
        "onnx": {"score": 0.8, "latency_seconds": 0.001},
        "onnx_int8": int8,
    }
    return {"networks": networks}


GOOD = {**phase(9, 20, 0.8, 0.795), "evidence": {"calibration_error": {"distilled": 0.05}}, "failed": []}

CASES: list[tuple[str, Mapping[str, Any]]] = [
    ("R103", files(score=0.8, seconds=0.0013)),
    ("R104", files(score=0.785, seconds=0.0005)),
    ("R105", phase(20, 20, 0.8, 0.8)),
    ("R107", phase(9, 20, 0.83, 0.80)),
    ("R108", {"failed": ["model.onnx differs by 0.3\nmore"]}),
    ("R109", {"networks": {"teacher": network(0.75), "alone": network(0.7), "distilled": network(0.8)}}),
    ("R110", {"evidence": {"calibration_error": {"distilled": 0.12}}}),
]


def codes(*runs: Any) -> list[str]:
    settings = Settings.of(runs)
    return [finding.code for finding in noticed(settings, settings.helped())]


def good(seed: int, changes: Mapping[str, Any], student: float = 0.8) -> Any:
    return told(seed=seed, student=student + 0.001 * seed, changes={**GOOD, **changes})


def test_good_runs_have_none() -> None:
    assert codes(*(good(seed, files(score=0.799, seconds=0.0005)) for seed in range(3))) == []


@pytest.mark.parametrize(("code", "changes"), CASES, ids=[code for code, _ in CASES])
def test_each_by_its_figures(code: str, changes: Mapping[str, Any]) -> None:
    runs = [good(0, changes), good(1, {}), good(2, {})]
    assert codes(*runs) == [code]
    (finding,) = noticed(Settings.of(runs), [])
    assert finding.where == "runs/kd-0"  # which of the three
    assert finding.severity == "warning"


def test_one_seed_ties_and_no_help() -> None:
    assert codes(told(changes=GOOD)) == ["R101"]
    assert codes(*(good(seed, {}, student=0.7 - 0.0005) for seed in range(3))) == ["R102"]
    assert codes(*(good(seed, {}, student=0.6) for seed in range(3))) == ["R106"]
    assert codes(told(student=0.69, changes=GOOD, evidence=kept())) == ["R101", "R106"]


def test_the_one_seed_is_told_with_what_chance_may_do() -> None:
    settings = Settings.of([told(changes=GOOD)])
    (finding,) = noticed(settings, settings.helped())
    assert finding.message == "one seed; a difference below 3.8 points may be chance"
    settings = Settings.of([told(changes=GOOD), told("semckd", changes=GOOD)])
    assert noticed(settings, [])[0].message.startswith("one seed each of kd, semckd; a difference")


def test_every_code_is_in_the_catalogue() -> None:
    found = {"R101", "R102", "R106", *(code for code, _ in CASES)}
    assert found == {code for code in CATALOGUE if code.startswith("R")}
