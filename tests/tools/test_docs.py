"""The generator of the documentation: tables, types, markers, and what counts as stale."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from tools import docs


class Inner(BaseModel):
    """What is inside."""

    size: Annotated[int, Field(ge=1)] | None = Field(None, description="Its size.")


class Outer(BaseModel):
    """What is outside."""

    name: str
    mode: Literal["off", "auto"] = "auto"
    inner: Inner = Field(default_factory=Inner, description="Shown by name.")
    others: dict[str, Inner] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (str, "str"),
        (float | None, "float"),
        (Annotated[int, Field(ge=1)] | None, "int"),
        (Literal["a", 3], '"a" | 3'),
        (dict[str, list[int] | bool], "dict[str, list[int] | bool]"),
    ],
)
def test_types_are_short(annotation: object, text: str) -> None:
    assert docs.type_text(annotation) == text


def test_a_table_used_twice_is_described_once() -> None:
    names = docs.tables(Outer)
    assert names == {Outer: "", Inner: "inner"}
    assert list(docs.keys(Outer, names)) == [
        ("`name`", "`str`", "required", ""),
        ("`mode`", '`"off" | "auto"`', '`"auto"`', ""),
        ("`inner`", "table [`inner`](#inner)", "", "Shown by name."),
        ("`others`", "table [`inner`](#inner), as `dict[str, table]`", "", ""),
    ]
    assert list(docs.keys(Inner, names)) == [("`size`", "`int`", "", "Its size.")]


class Round(BaseModel):
    """A ball."""

    name: Literal["ball"]
    size: int = Field(2, description="Its size.")


class Edged(BaseModel):
    """A box."""

    name: Literal["box"]


def test_of_several_tables_each_is_described() -> None:
    class Chosen(BaseModel):
        shapes: list[Literal["ball", "box"] | Round | Edged] = Field(default_factory=list)

    names = docs.tables(Chosen)
    assert names == {Chosen: "", Round: "shapes.ball", Edged: "shapes.box"}
    ((key, shown, default, _),) = docs.keys(Chosen, names)
    assert (key, default) == ("`shapes`", "`[]`")
    assert shown == (
        'table [`shapes.ball`](#shapesball), [`shapes.box`](#shapesbox), as `list["ball" | "box" | table]`'
    )


def test_signatures_are_as_one_would_write_them() -> None:
    def short(one: Path, *, two: Literal["a", "b"] = "a") -> Inner: ...

    assert docs.signature_text("f", short) == "f(one: Path, *, two: Literal['a', 'b'] = 'a') -> Inner"
    assert docs.signature_text("Inner", Inner) == "Inner(*, size: int | None = None)"
    assert "inner: Inner = ..." in docs.signature_text("Outer", Outer)


def test_bars_and_line_ends_do_not_break_a_table() -> None:
    assert docs.table(("a", "b"), [("1 | 2", "x\ny")]).splitlines()[-1] == r"| 1 \| 2 | x y |"


def test_only_what_is_between_the_markers_is_replaced() -> None:
    text = "before\n<!-- methods:begin -->\nold\n<!-- methods:end -->\nafter\n"
    new = docs.between(text, "methods", "| new |")
    assert new == text.replace("old", "| new |")
    assert docs.between(new, "methods", "| new |") == new


def test_missing_markers_are_an_error() -> None:
    with pytest.raises(SystemExit, match="methods:begin"):
        docs.between("no markers", "methods", "new")


def test_stale_names_what_changed_and_what_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    (tmp_path / "docs/methods").mkdir(parents=True)
    (tmp_path / "docs/methods/gone.md").write_text("old")
    (tmp_path / "README.md").write_text("same\n")
    found = list(docs.stale({Path("README.md"): "same\n", Path("docs/methods/new.md"): "text\n"}))
    assert len(found) == 2
    assert "+text" in found[0]
    assert found[1].startswith("docs/methods/gone.md")
