"""Scales, ticks, marks: where values stand."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from limbeck._report import pictures
from limbeck._report.facts import Curve, Model
from limbeck._report.svg import Scale, bounds, mark, path, tag


def test_attributes_and_text_are_escaped() -> None:
    made = tag("text", "<b>", class_='"x', font_size=12.0)
    assert str(made) == '<text class="&#34;x" font-size="12">&lt;b&gt;</text>'
    assert str(tag("g", Markup("<a/>"), fill=None)) == "<g><a/></g>"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.79, 0.91, [0.8, 0.82, 0.84, 0.86, 0.88, 0.9]),
        (-3.0, 12.0, [0.0, 5.0, 10.0]),
        (1.0, 12.0, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 100).ticks(6) == pytest.approx(ticks)


def test_logarithmic_scale_spaces_ratios_evenly() -> None:
    scale = Scale(1e-4, 1e-2, 0.0, 100.0, logarithmic=True)
    assert [scale(value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 50, 100])
    assert scale.ticks(4) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert scale.ticks(8) == pytest.approx([1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2])


def test_bounds_are_never_empty() -> None:
    for values in ([0.0], [0.5, 0.5], [1e-9], [-2.0, 3.0]):
        low, high = bounds(values)
        assert low < min(values) <= max(values) < high


def test_a_line_needs_two_points_and_marks_differ_in_shape() -> None:
    assert path([(0.0, 0.0)], "x") == ""
    kinds = {str(mark((1.0, 1.0), shape, "c")).split()[0] for shape in ("circle", "square", "diamond")}
    assert kinds == {"<circle", "<rect", "<polygon"}


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    points = [(float(epoch), 1.0 / epoch) for epoch in range(1, 100_001)]
    made = str(pictures.curves([Curve("s1", "a", points)], "Terms", "loss", pictures.plain, from_zero=True))
    assert len(made) < 20_000


def test_one_epoch_and_equal_values_can_be_drawn() -> None:
    pictures.curves([Curve("s1", "a", [(1.0, 0.0)], 1.0)], "x", "loss", pictures.plain, from_zero=True)
    models = [Model("s1", "a", [0.5], latency=[0.001]), Model("teacher", "b", [0.5], latency=[0.001])]
    assert "nan" not in str(pictures.trade(models, "classes", "accuracy"))


def test_names_in_the_picture_do_not_meet() -> None:
    models = [Model("s1", f"student by method number {n}", [0.5], latency=[0.001]) for n in range(8)]
    made = str(pictures.trade(models, "values", "r2"))
    assert 2 <= made.count('class="c-s1 label"') <= 2 * 6  # places around a mark, in two drawings
    assert made.count("student by method number 7: 0.500") == 2  # the description has all
