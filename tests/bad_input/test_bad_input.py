"""Every wrong request ends with exit code 2 and one message with its fix, and writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from limbeck import cli
from tests.bad_input import cases, cases_of_the_cache, cases_of_the_report
from tests.bad_input.cases import RECIPE, Case

CASES = [*cases.CASES, *cases_of_the_cache.CASES, *cases_of_the_report.CASES]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wrong_request(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    old, new = case.edit
    assert old in RECIPE
    (tmp_path / "mine.toml").write_text(RECIPE.replace(old, new, 1) if old else RECIPE, encoding="utf-8")
    if case.files is not None:
        case.files(tmp_path)
    before = _contents(tmp_path)
    with pytest.raises(SystemExit) as done:
        cli.main(case.command())
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert done.value.code == 2, err
    assert out == ""
    assert lines[0].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert "Traceback" not in err
    assert case.said in lines[0]
    assert lines[-1].startswith("  fix: "), err
    assert case.fix in "\n".join(lines[1:])  # in the fix, or among the near names
    assert not case.where or any(line.startswith(f"  {case.where}") for line in lines[1:]), err
    assert len(lines) <= 5
    assert _contents(tmp_path) == before


def test_there_are_at_least_thirty_and_each_has_its_name() -> None:
    assert len(CASES) >= 30
    assert len({case.name for case in CASES}) == len(CASES)
