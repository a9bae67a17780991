"""Every wrong request ends with its exit code and one message with its fix, and writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from limbeck import cli
from tests.bad_input import (
    cases,
    cases_of_check,
    cases_of_compare,
    cases_of_files,
    cases_of_lists,
    cases_of_the_cache,
    cases_of_the_device,
    cases_of_the_report,
    cases_of_weights,
)
from tests.bad_input.cases import RECIPE, Case

CASES = [
    *cases.CASES,
    *cases_of_check.CASES,
    *cases_of_compare.CASES,
    *cases_of_files.CASES,
    *cases_of_lists.CASES,
    *cases_of_the_cache.CASES,
    *cases_of_the_device.CASES,
    *cases_of_the_report.CASES,
    *cases_of_weights.CASES,
]
#: Names that a message may offer, and the lines that it may have.
MOST_NAMES, MOST_LINES = 5, 5


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


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
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as done:
        cli.main(case.command())
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert done.value.code == case.code, err
    assert out == ""
    assert lines[0].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert "Traceback" not in err
    assert case.said in lines[0]
    assert lines[-1].startswith("  fix: "), err
    assert case.fix in "\n".join(lines[1:])  # in the fix, or among the near names
    assert not case.where or any(line.startswith(f"  {case.where}") for line in lines[1:]), err
    assert len(lines) <= MOST_LINES
    assert all(len(line.split(",")) <= MOST_NAMES for line in lines if line.startswith("  near: "))
    assert contents(tmp_path) == before


def test_there_are_at_least_sixty_and_each_has_its_name() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
