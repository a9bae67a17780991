"""`data.augment` in a recipe: names and tables, typed and refused at the door."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.data.augment import KINDS
from limbeck.data.views import Views
from limbeck.errors import RequestError
from limbeck.recipe import Recipe

RECIPE = """name = "small"
[data]
source = "fashion-small"
augment = [
    "flip",
    { name = "resized-crop", scale = [0.2, 1] },  # SimCLR
    { name = "colour", hue = 0.2 },
]
[student]
model = "cnn-tiny"
"""

TABLES = """name = "small"
[data]
source = "fashion-small"
[[data.augment]]
name = "crop"
padding = 2
[[data.augment]]
name = "erase"
[student]
model = "cnn-tiny"
"""


def refused(text: str, *changes: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        Recipe.parse(text, "mine.toml", changes)
    return caught.value


@pytest.mark.parametrize("text", [RECIPE, TABLES])
def test_names_and_tables_round_trip(text: str) -> None:
    recipe = Recipe.parse(text, "r.toml")
    assert Recipe.parse(recipe.to_toml(), "r.toml").given() == recipe.given()
    assert Recipe.parse(recipe.to_toml(defaults=True), "r.toml") == recipe
    assert Recipe(**recipe.given()) == recipe
    assert recipe.source_text() == text
    given = recipe.model_dump()["data"]["augment"]  # as the reader of the data gets it
    assert Views(0, given).describe() == Views(0, recipe.data.augment).describe()


def test_defaults_are_written_out_where_they_are_asked_for() -> None:
    recipe = Recipe.parse(TABLES, "r.toml")
    assert recipe.given()["data"]["augment"] == [{"name": "crop", "padding": 2}, {"name": "erase"}]
    written = recipe.model_dump()["data"]["augment"]
    assert written[0] == {"name": "crop", "padding": 2, "border": "zeros"}
    assert written[1]["probability"] == 0.25


@pytest.mark.parametrize(
    ("change", "described"),
    [
        ('data.augment=["crop","flip"]', "crop(padding=4, border=zeros)+flip(probability=0.5)"),
        ('data.augment=["crop", {name="flip", probability=1}]', "+flip(probability=1.0)"),
        ("data.augment.1.scale=[0.5, 0.5]", "resized-crop(scale=[0.5, 0.5], "),
        ("data.augment=[]", "unaugmented"),
    ],
)
def test_set_changes_it(change: str, described: str) -> None:
    recipe = Recipe.parse(RECIPE, "r.toml", [change])
    assert described in Views(0, recipe.data.augment).describe()
    assert Recipe.parse(recipe.source_text(), "r.toml") == recipe
    assert "# SimCLR" in recipe.source_text() or "data.augment=" in change


@pytest.mark.parametrize(
    ("old", "new", "place", "said", "fix"),
    [
        ('"flip"', '"flipp"', "mine.toml:5:5", "no augmentation 'flipp'", "flip"),
        ("scale", "scael", "mine.toml:6:5", "resized-crop has no option 'scael'", "scale"),
        (
            "[0.2, 1]",
            "[1, 0.2]",
            "mine.toml:6:5",
            "has scale = [1, 0.2]; needed: area",
            "scale = [0.08, 1.0]",
        ),
        ("0.2 }", '"x" }', "mine.toml:7:5", "colour has hue = 'x'", "hue = 0.1"),
    ],
)
def test_message_has_place_and_fix(old: str, new: str, place: str, said: str, fix: str) -> None:
    error = refused(RECIPE.replace(old, new))
    assert error.where == place
    assert said in error.message
    assert fix in (error.fix or "")


def test_what_is_no_list_is_told_what_can_be_in_one() -> None:
    error = refused(RECIPE, "data.augment=crop")
    assert all(f'"{name}"' in error.message for name in KINDS)
    assert error.message.count("a table") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.mix=mixpu", '"none", "mixup" or "cutmix", not "mixpu"'),
        ("data.mix_alpha=0", "data.mix_alpha is 0: more than 0"),
        ("data.augment.1.scal=1", "unknown key data.augment.1.scal"),
        ("data.augment=[3]", "3 names no augmentation"),
    ],
)
def test_other_requests_are_refused(change: str, said: str) -> None:
    assert said in refused(RECIPE, change).message


def test_the_fingerprint_knows_options_and_mixing() -> None:
    changes: list[list[Any]] = [[], ["data.augment.1.scale=[0.3,1]"], ["data.mix=mixup"], ["data.augment=[]"]]
    changes.append(["data.mix=mixup", "data.mix_alpha=0.5"])
    assert len({Recipe.parse(RECIPE, "x", each).fingerprint() for each in changes}) == 5
