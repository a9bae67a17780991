"""The page from plain facts: what is shown, what is left out, what data cannot do to it, who can read it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from limbeck._report.facts import Details, Dispute, Page
from limbeck._report.page import _TEMPLATES, GENERATOR, render
from tests.report.pages import HOSTILE, details, names, page

_VOID = ("meta", "link", "img", "br")


class Read(HTMLParser):
    """What a browser would make of a page: its elements in order, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def full() -> Read:
    return Read(render(page(names(10))))


def headings(read: Read) -> list[int]:
    return [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]


def test_every_section_is_there_with_its_link(full: Read) -> None:
    links = [link["href"] for link in full.named("a")]
    places = [attributes["id"] for _, attributes in full.elements if "id" in attributes]
    assert len(places) == len(set(places))
    assert {str(link).removeprefix("#") for link in links} <= set(places)
    for section in ("findings", "models", "trade", "helped", "training"):
        assert section in places
    for section in ("classes", "agreement", "disputes", "files", "cost", "repeat"):
        assert f"{section}-1" in places


def test_a_page_without_facts_has_no_empty_heading() -> None:
    bare = Page("run", "about", "verdict", "values", "r2", "test", 10, "0.1.0", runs=[Details("run")])
    read = Read(render(bare))
    assert headings(read) == [1]
    assert read.named("section", "table", "svg", "details", "dl") == []


@pytest.mark.parametrize(
    "missing",
    ["classes", "agreement", "disputes", "files", "phases", "splits", "calibration", "command"],
)
def test_a_section_without_data_is_left_out(missing: str) -> None:
    empty = None if missing in ("classes", "agreement") else ()
    run = replace(details(names(4)), **{missing: empty})
    read = Read(render(replace(page(names(4)), runs=[run])))
    links = [str(link["href"]).removeprefix("#") for link in read.named("a")]
    places = {attributes.get("id") for _, attributes in read.elements}
    assert set(links) <= places
    if missing in ("classes", "disputes", "files"):
        assert f"{missing}-1" not in places


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_from_data_are_only_text(name: str) -> None:
    plain = Read(render(page(["one", "two"])))
    hostile = Read(render(page([name, "two"])))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    for (_, given), (_, expected) in zip(hostile.elements, plain.elements, strict=True):
        assert set(given) == set(expected)
        assert not any(key.startswith("on") for key in given)
        assert given.get("href") == expected.get("href")
        assert given.get("src") == expected.get("src")
    assert hostile.named("script", "iframe", "form", "object", "embed", "base") == []


def test_texts_and_rows_in_dispute_are_only_text() -> None:
    samples = [replace(each, picture=None, text=HOSTILE[0]) for each in details(["a", "b"]).disputes]
    rows: list[Dispute] = [replace(each, text=None, values=[(HOSTILE[2], HOSTILE[1])]) for each in samples]
    for held in (samples, rows):
        run = replace(details(["a", "b"]), disputes=held)
        read = Read(render(replace(page(["a", "b"]), runs=[run])))
        assert read.named("script", "img") == []


def test_nothing_points_outside(full: Read) -> None:
    text = render(page(names(10)))
    assert "http-equiv" in text
    policy = next(str(meta["content"]) for meta in full.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    for attributes in (attributes for _, attributes in full.elements):
        for key in ("src", "href"):
            assert str(attributes.get(key, "#")).startswith(("#", "data:"))
    assert "url(" not in text
    assert "@import" not in text
    assert GENERATOR in text
    assert text.isascii()


def test_headings_come_in_order_for_one_run_and_for_several() -> None:
    for runs in (1, 2):
        levels = headings(Read(render(page(names(5), runs=runs))))
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_tables_and_boxes_have_names(full: Read) -> None:
    drawings = [each for each in full.named("svg") if each.get("aria-hidden") != "true"]
    assert drawings
    assert all(each["role"] == "img" and each["aria-label"] for each in drawings)
    assert sum(tag == "title" for tag, _ in full.elements) == len(drawings) + 1
    assert sum(tag == "desc" for tag, _ in full.elements) == len(drawings)
    assert all("scope" in each for each in full.named("th"))
    assert all(each.get("alt") for each in full.named("img"))
    boxes = [each for each in full.named("div") if each.get("role") == "region"]
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in boxes)
    assert len([each for each in full.named("html") if each["lang"] == "en"]) == 1
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in full.elements}


def test_every_picture_says_how_to_read_it(full: Read) -> None:
    assert len(full.named("figure")) <= full.text.count("How to read:")


def test_size_is_bounded_whatever_the_data() -> None:
    long = [f"{'w' * 200} {number}" for number in range(1000)]
    text = render(page(long, epochs=5000))
    assert len(text) < 1_000_000
    assert 8 * len(render(page(names(30)))) < 3_000_000


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_contrast_in_both_themes() -> None:
    style = (_TEMPLATES / "style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    themes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in (light, dark)]
    assert set(themes[1]) == set(themes[0])
    for theme in themes:
        texts = set(theme) - {"paper", "line", "faint", "warm"}
        for name in texts:
            for ground in ("paper", "faint", "warm"):
                first, second = sorted((luminance(theme[name]), luminance(theme[ground])), reverse=True)
                assert (first + 0.05) / (second + 0.05) >= 4.5, (name, ground)
