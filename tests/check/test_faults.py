"""Every planted fault is found, by its code and its line; what is right is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck import check
from limbeck._findings import CATALOGUE
from limbeck._run.screen import silent
from tests.check.faults import FAULTS, Fault, checked
from tests.check.planted import RECIPE, saved


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_what_is_right_has_no_finding(tmp_path: Path) -> None:
    saved(tmp_path)
    Path("mine.toml").write_text(RECIPE, encoding="ascii")
    before = contents()
    done = check("mine.toml", screen=silent())
    assert not done.findings, done.text()
    assert len(done.passed) >= 15
    assert contents() == before


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    done = checked(fault, tmp_path)
    recipe = Path("mine.toml").read_text(encoding="ascii")
    found = [each for each in done.findings if each.code == fault.code]
    assert found, done.text()
    first = found[0]
    assert fault.line in first.line, done.text()
    assert first.where is not None
    number = int(first.where.split(":")[1])
    assert recipe.splitlines()[number - 1].strip() == first.line
    assert fault.fix in (first.fix or ""), done.text()
    assert fault.said in f"{first.message} {first.detail}", done.text()
    assert {each.code for each in done.errors} <= {fault.code}, done.text()
    assert all(len(line) <= 80 for line in done.text().splitlines() if "tests.check" not in line), done.text()
    before = contents()
    check("mine.toml", screen=silent())
    assert contents() == before


def test_there_are_at_least_twenty_and_the_catalogue_has_their_codes() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20
    assert {fault.code for fault in FAULTS} <= set(CATALOGUE)
