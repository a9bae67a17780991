"""Links between the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.readme import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_guide_and_example_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    for path in [*(ROOT / "docs/how-to").glob("*.md"), *(ROOT / "docs/why").glob("*.md")]:
        assert f"({path.parent.name}/{path.name})" in index
    for path in (ROOT / "examples").glob("*.py"):
        assert f"(../examples/{path.name})" in index
        assert len(path.read_text("utf-8").splitlines()) <= 60
    decisions = (ROOT / "docs/decisions/README.md").read_text("utf-8")
    for path in (ROOT / "docs/decisions").glob("0*.md"):
        assert f"({path.name})" in decisions
