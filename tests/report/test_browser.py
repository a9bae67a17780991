"""The page in a real browser: from disk, on a phone and on a desk, light and dark, everything clicked."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from limbeck._report.page import render
from tests.report.pages import HOSTILE, names, page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WIDTHS = (360, 1280)
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: Heights in pixels of the letters of a drawing, as they are shown.
_LETTERS = """[...document.querySelectorAll("figure svg text")].map(
    text => text.getBoundingClientRect().height).filter(height => height > 0)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; without one, or without what drives it, these tests are left out, but never in CI."""
    program = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    missing = program is None or importlib.util.find_spec("playwright") is None
    if missing and not os.environ.get("CI"):
        pytest.skip("needs Chromium, and playwright of the extra dev")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page from disk; fails on whatever the browser complains about or asks the network for."""
    complaints: list[str] = []
    contexts = []

    def opened(text: str, width: int, scheme: str) -> Any:
        file = tmp_path / "a report #1.html"
        file.write_text(text, encoding="ascii")
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        shown.on(
            "request",
            lambda request: None if _is_local(request.url, file) else complaints.append(request.url),
        )
        shown.goto(file.as_uri())
        return shown

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _is_local(address: str, file: Path) -> bool:
    return address.startswith("data:") or address.partition("#")[0] == file.as_uri()


@pytest.mark.parametrize(
    ("width", "scheme", "runs"),
    [(360, "light", 1), (360, "dark", 2), (1280, "dark", 1), (1280, "light", 2)],
)
def test_everything_can_be_clicked_and_nothing_overflows(
    show: Callable[..., Any], width: int, scheme: str, runs: int
) -> None:
    shown = show(render(page(names(12), runs=runs)), width, scheme)
    assert shown.evaluate(_OVERFLOW) == 0
    for link in shown.locator("nav a").all():
        link.click()
        target = str(link.get_attribute("href"))
        assert shown.evaluate("location.hash") == target
        assert shown.locator(target).bounding_box() is not None
    for summary in shown.locator("summary").all():
        if summary.is_visible():
            summary.click()
    assert shown.locator("details:not([open])").count() == 0
    assert shown.evaluate(_OVERFLOW) == 0


@pytest.mark.parametrize("width", _WIDTHS)
def test_names_from_data_do_nothing_and_break_nothing(show: Callable[..., Any], width: int) -> None:
    first = max(HOSTILE, key=len)  # the name of run, method, files; all of them are names of classes
    shown = show(render(page([first, *HOSTILE])), width, "light")
    for summary in shown.locator("summary").all():
        summary.click()
    assert shown.evaluate(_OVERFLOW) == 0
    assert shown.title() == first


@pytest.mark.parametrize("width", _WIDTHS)
def test_one_drawing_of_each_pair_is_shown_and_its_letters_can_be_read(
    show: Callable[..., Any], width: int
) -> None:
    shown = show(render(page(names(5))), width, "light")
    drawings = shown.locator("figure svg[role=img]").all()
    visible = [drawing for drawing in drawings if drawing.is_visible()]
    assert len(visible) == len(drawings) // 2
    kind = "wide" if width > _WIDTHS[0] else "narrow"
    assert {drawing.get_attribute("class") for drawing in visible} == {kind}
    assert min(shown.evaluate(_LETTERS)) >= 12


def test_themes_differ_and_paper_is_white(show: Callable[..., Any]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    text = render(page(names(3), runs=2))
    light, dark = (show(text, 1280, scheme) for scheme in ("light", "dark"))
    assert light.evaluate(ground) != dark.evaluate(ground)
    dark.emulate_media(media="print")
    assert dark.evaluate(ground) == "rgb(255, 255, 255)"
    assert not dark.locator("nav").is_visible()
    assert dark.locator("svg.wide").first.is_visible()


def test_the_keyboard_reaches_the_results_and_wide_tables(show: Callable[..., Any]) -> None:
    shown = show(render(page(names(5))), 360, "light")
    shown.keyboard.press("Tab")
    focus = "document.activeElement.className"
    assert shown.evaluate(focus) == "skip"
    assert shown.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    shown.keyboard.press("Enter")
    assert shown.evaluate("location.hash") == "#main"
    shown.locator("#models .scroll").focus()
    shown.keyboard.press("ArrowRight")
    for _ in range(100):  # not wait_for_function, whose eval the page forbids
        if shown.evaluate("document.querySelector('#models .scroll').scrollLeft") > 0:
            break
        shown.wait_for_timeout(50)
    else:
        pytest.fail("the arrow key does not scroll the table")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert shown.evaluate(outline) == "solid"
