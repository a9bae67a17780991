"""The catalogue: every code that is used, in words that fit a console and a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from limbeck._findings import CATALOGUE, Finding, explain, found
from limbeck._findings.catalogue import page
from limbeck.errors import RequestError

PACKAGE = Path(__file__).parents[2] / "limbeck"


def test_every_code_in_the_package_is_explained_and_every_code_of_check_is_used() -> None:
    used = {
        code
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "_findings"
        for code in re.findall(r'"([KR][12]\d\d)"', path.read_text())
    }
    assert used <= set(CATALOGUE)
    assert {code for code in CATALOGUE if code.startswith("K")} <= used


def test_codes_are_in_order_and_texts_fit() -> None:
    assert list(CATALOGUE) == sorted(CATALOGUE, key=lambda code: (code[0], code))
    for code, entry in CATALOGUE.items():
        assert entry.code == code
        assert all(len(line) <= 80 for line in explain(code).splitlines())
        assert entry.means.endswith((".", ")"))
        assert entry.mend
    assert page().count("\n## ") == len(CATALOGUE) - 1


def test_an_unknown_code_names_near_ones() -> None:
    with pytest.raises(RequestError, match="there is no finding 'K14'") as caught:
        explain("K14")
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("limbeck check --explain K1")


def test_a_finding_is_folded_and_stored() -> None:
    one = found("K104", "a sentence " * 12, "mine.toml:9:1", "x " * 60, line="weights = 1", detail="d " * 90)
    assert one.severity == "error"
    assert all(len(line) <= 80 for line in one.text().splitlines())
    assert Finding(**one.stored()) == one
    assert found("R101", "one seed").severity == "warning" == found("K203", "x").severity
