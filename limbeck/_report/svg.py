"""Drawing: elements whose text is escaped, scales from values to places, axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Point = tuple[float, float]


def tag(name: str, *inner: str | Markup, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        inner: what stands in it; text is escaped, markup is not.
        attributes: `_` stands for `-`, and a trailing one is dropped (`class_`); None leaves one out.
    """
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    body = Markup("").join(escape(part) for part in inner)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), given, body)


def _value(value: object) -> object:
    """Places with one decimal: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def text(at: Point, content: str, *, anchor: str = "start", class_: str | None = None) -> Markup:
    """A line of text; `at` is on its base line."""
    return tag("text", content, x=at[0], y=at[1], text_anchor=anchor, class_=class_)


def line(start: Point, end: Point, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def path(points: Sequence[Point], class_: str) -> Markup:
    """A line through points; nothing for fewer than two."""
    if len(points) < 2:
        return Markup("")
    steps = " ".join(f"{'L' if number else 'M'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))
    return tag("path", d=steps, class_=class_)


def mark(at: Point, shape: str, class_: str, radius: float = 5.0) -> Markup:
    """A mark: "circle", "ring", "square" or "diamond"; shape and colour both tell what it stands for."""
    x, y = at
    if shape in ("circle", "ring"):
        return tag("circle", cx=x, cy=y, r=radius, class_=f"{shape} {class_}")
    if shape == "square":
        side = radius * 1.8
        return tag("rect", x=x - side / 2, y=y - side / 2, width=side, height=side, class_=f"square {class_}")
    corners = [(x, y - radius * 1.2), (x + radius * 1.2, y), (x, y + radius * 1.2), (x - radius * 1.2, y)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return tag("polygon", points=points, class_=f"diamond {class_}")


def picture(size: Point, title: str, about: str, parts: Sequence[Markup], class_: str) -> Markup:
    """A drawing with its name and description for who cannot see it.

    Args:
        size: width and height in pixels, at which text has its natural size.
        title: in a few words.
        about: what there is to see.
        parts: what is drawn.
        class_: says on which screens it is shown.
    """
    width, height = size
    return tag(
        "svg",
        tag("title", title),
        tag("desc", about),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_label=title,
        class_=class_,
        style=f"max-width:{width:.0f}px",
    )


@dataclass(frozen=True)
class Scale:
    """Where a value stands.

    Args:
        low: the value at `start`.
        high: the value at `end`.
        start: a place in pixels.
        end: another.
        logarithmic: equal ratios are equal distances; both values are above 0 then.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values within the bounds, at most so many."""
        return self._powers(most) if self.logarithmic else self._steps(most)

    def _steps(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _powers(self, most: int) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [step * 10.0**exponent for exponent in exponents for step in steps]
            held = [value for value in found if self.low <= value <= self.high]
            if len(held) <= most:
                break
        return held


def bounds(values: Sequence[float], room: float = 0.08) -> tuple[float, float]:
    """The least and the largest value with some room around them; never equal."""
    low, high = min(values), max(values)
    gap = (high - low) * room or abs(high) * room or 1.0
    return low - gap, high + gap


def axes(
    across: Scale,
    up: Scale,
    names: tuple[str, str],
    show: tuple[Callable[[float], str], Callable[[float], str]],
    most: tuple[int, int] = (6, 5),
) -> list[Markup]:
    """Faint lines at the ticks of the upright axis, ticks of the other, and the names of both.

    Args:
        across: of the values from left to right.
        up: of the values upwards.
        names: of the two.
        show: a value of each in words.
        most: ticks of each.
    """
    left, right, bottom = across.start, across.end, up.start
    parts = []
    for value in up.ticks(most[1]):
        at = up(value)
        parts += [
            line((left, at), (right, at), "grid"),
            text((left - 6, at + 4), show[1](value), anchor="end"),
        ]
    for value in across.ticks(most[0]):
        at = across(value)
        parts += [
            line((at, bottom), (at, bottom + 4), "axis"),
            text((at, bottom + 18), show[0](value), anchor="middle"),
        ]
    parts.append(line((left, bottom), (right, bottom), "axis"))
    parts.append(text((right, bottom + 36), names[0], anchor="end", class_="name"))
    parts.append(text((2.0, up.end - 12), names[1], class_="name"))
    return parts
