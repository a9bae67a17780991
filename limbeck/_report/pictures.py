"""The pictures of a page, each drawn twice: for a wide screen or paper, and for a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from limbeck._report.facts import Calibration, Comparison, Curve, Model
from limbeck._report.svg import Point, Scale, axes, bounds, line, mark, path, picture, tag, text
from limbeck._show import figures

WIDE, NARROW = 720.0, 328.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 34.0, 44.0
_LETTER = 6.9  # mean width in pixels of a letter at 13 pixels
_MOST_POINTS = 300  # of a curve
_NAME = 26  # letters of a name in a picture

Draw = Callable[[float], tuple[Point, Sequence[Markup]]]


def both(title: str, about: str, draw: Draw) -> Markup:
    """A picture for wide and one for narrow screens; style sheets show one of them.

    Args:
        title: its name.
        about: what there is to see, for who cannot see it.
        draw: from the width in pixels to the size and the parts.
    """
    parts = []
    for width, class_ in ((WIDE, "wide"), (NARROW, "narrow")):
        size, drawn = draw(width)
        parts.append(picture(size, title, about, drawn, class_))
    return Markup("\n").join(parts)


def shortened(name: str, most: int = _NAME) -> str:
    """A name that is no longer than so many letters."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


def plain(value: float) -> str:
    """A number at an axis, without digits that do not count."""
    return f"{value:.4g}"


def share(kind: str) -> Callable[[float], str]:
    """How a score stands at an axis."""
    if figures.is_share(kind):
        return lambda value: f"{value * 100:.4g} %"
    return lambda value: f"{value:.3g}"


def trade(models: Sequence[Model], kind: str, score_name: str) -> Markup:
    """Score over latency, one mark a model."""
    shown = [model for model in models if model.seconds is not None]
    times = [model.seconds or 0.0 for model in shown]
    logarithmic = max(times) > 4 * min(times)
    span = (min(times) / 1.6, max(times) * 1.9) if logarithmic else bounds(times, 0.25)
    heights = bounds([model.score for model in shown], 0.2)

    def draw(width: float) -> tuple[Point, Sequence[Markup]]:
        height = 330.0
        across = Scale(*span, _LEFT, width - _RIGHT, logarithmic)
        up = Scale(*heights, height - _BOTTOM, _TOP)
        most = (7 if width > NARROW else 4, 5)
        names = ("time of one answer", score_name)
        parts = axes(across, up, names, (figures.latency_short, share(kind)), most)
        places = [(across(model.seconds or 0.0), up(model.score)) for model in shown]
        parts += _labels(shown, places, width)
        for model, place in zip(shown, places, strict=True):
            parts.append(mark(place, shape_of(model.series, model.file), f"c-{model.series}", 6))
        return (width, height), parts

    about = "; ".join(
        f"{model.name}: {figures.score(kind, model.score)} at {figures.latency(model.seconds or 0.0)}"
        for model in shown
    )
    return both(f"{score_name} over the time of one answer", f"{about}.", draw)


def shape_of(series: str, file: bool = False) -> str:
    """The mark of a model, so that colour is not needed to tell it."""
    if file:
        return "diamond"
    return {"teacher": "square", "alone": "ring"}.get(series, "circle")


def _labels(models: Sequence[Model], places: Sequence[Point], width: float) -> list[Markup]:
    """Names beside the marks, each where it meets neither a mark nor another name; the table has all."""
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in places]
    found = []
    for model, (x, y) in zip(models, places, strict=True):
        name = shortened(model.name, 18 if width <= NARROW else _NAME)
        length = len(name) * _LETTER
        tries = (
            ("start", (x + 12, y + 4), (x + 12, y - 8, x + 12 + length, y + 8)),
            ("end", (x - 12, y + 4), (x - 12 - length, y - 8, x - 12, y + 8)),
            ("middle", (x, y - 13), (x - length / 2, y - 26, x + length / 2, y - 9)),
            ("middle", (x, y + 22), (x - length / 2, y + 10, x + length / 2, y + 26)),
            ("end", (x + 8, y - 13), (x + 8 - length, y - 26, x + 8, y - 9)),
            ("end", (x + 8, y + 22), (x + 8 - length, y + 10, x + 8, y + 26)),
        )
        free = next((one for one in tries if _is_free(one[2], taken, width)), None)
        if free is not None:
            taken.append(free[2])
            found.append(text(free[1], name, anchor=free[0], class_=f"c-{model.series} label"))
    return found


Box = tuple[float, float, float, float]


def _is_free(box: Box, taken: Sequence[Box], width: float) -> bool:
    if box[0] < _LEFT or box[2] > width or box[1] < _TOP - 10:
        return False
    return all(
        box[2] < other[0] or box[0] > other[2] or box[3] < other[1] or box[1] > other[3] for other in taken
    )


def curves(
    lines: Sequence[Curve], title: str, value_name: str, show: Callable[[float], str], *, from_zero: bool
) -> Markup:
    """Lines over epochs; the chosen epoch of each is marked.

    Args:
        lines: at least one with a point.
        title: of the picture.
        value_name: of the upright axis.
        show: a value in words.
        from_zero: whether the axis begins there.
    """
    values = [value for curve in lines for _, value in curve.points]
    low, high = bounds(values)
    low = 0.0 if from_zero and low < high else low
    last = max(epoch for curve in lines for epoch, _ in curve.points)

    def draw(width: float) -> tuple[Point, Sequence[Markup]]:
        height = 300.0
        across = Scale(0.0 if last == 1 else 1.0, max(last, 1.0), _LEFT, width - _RIGHT)
        up = Scale(low, high, height - _BOTTOM, _TOP)
        whole = (max(min(8 if width > NARROW else 5, int(last) - 1), 1), 5)
        parts = axes(across, up, ("epoch", value_name), (_epoch, show), whole)
        for curve in lines:
            points = [(across(epoch), up(value)) for epoch, value in _thinned(curve.points)]
            parts.append(path(points, f"line c-{curve.series}"))
            parts += [mark(points[0], "circle", f"c-{curve.series}", 3)] if len(points) == 1 else []
        for curve in lines:
            place = next(((e, v) for e, v in curve.points if e == curve.chosen), None)
            if place is not None:
                at = (across(place[0]), up(place[1]))
                parts.append(mark(at, shape_of(curve.series), f"c-{curve.series}", 5.5))
        return (width, height), parts

    told = "; ".join(
        f"{curve.whole_name}: from {show(curve.points[0][1])} to {show(curve.points[-1][1])}"
        + (f", epoch {curve.chosen:.0f} chosen" if curve.chosen else "")
        for curve in lines
    )
    return both(title, f"{told}.", draw)


def _epoch(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else ""


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most so many points, first and last among them."""
    step = -(-len(points) // _MOST_POINTS)
    return points if step < 2 else [*points[:-1:step], points[-1]]


def legend(series: Sequence[tuple[str, str, str]]) -> Markup:
    """What line and mark of each series mean.

    Args:
        series: colour, shape and name; no shape is a line alone.
    """
    entries = []
    for colour, shape, name in series:
        drawn = [line((1.0, 8.0), (25.0, 8.0), f"line c-{colour}")]
        drawn += [mark((13.0, 8.0), shape, f"c-{colour}", 4.5)] if shape else []
        sample = tag("svg", *drawn, viewBox="0 0 26 16", width=26, height=16, aria_hidden="true")
        entries.append(tag("li", sample, tag("bdi", name)))
    return tag("ul", *entries, class_="legend")


def helped(comparisons: Sequence[Comparison], kind: str) -> Markup:
    """Paired differences: a dot a seed, the mean with its interval."""
    scale = 100.0 if figures.is_share(kind) else 1.0
    reach = [0.0]
    for each in comparisons:
        half = each.interval.half if each.interval else 0.0
        reach += [each.mean - half, each.mean + half, *(value for _, value in each.differences)]
    low, high = bounds([scale * value for value in reach], 0.12)
    unit = "points" if figures.is_share(kind) else "score"

    def draw(width: float) -> tuple[Point, Sequence[Markup]]:
        height = _TOP + 58.0 * len(comparisons) + 48
        across = Scale(low, high, 12.0, width - _RIGHT)
        bottom = height - _BOTTOM
        parts = [
            line((across(0.0), 12.0), (across(0.0), bottom), "axis zero"),
            line((12.0, bottom), (width - _RIGHT, bottom), "axis"),
        ]
        for value in across.ticks(8 if width > NARROW else 5):
            parts += [
                line((across(value), bottom), (across(value), bottom + 4), "axis"),
                text((across(value), bottom + 18), f"{value:+.4g}".replace("+0", "0"), anchor="middle"),
            ]
        parts.append(text((width - _RIGHT, bottom + 36), f"{unit} gained", anchor="end", class_="name"))
        for number, each in enumerate(comparisons):
            parts += _helped_row(each, 22.0 + 58.0 * number, across, scale, width)
        return (width, height), parts

    told = "; ".join(f"{each.name}: {scale * each.mean:+.2f} {unit}" for each in comparisons)
    return both("Differences of scores", f"{told}.", draw)


def _helped_row(each: Comparison, top: float, across: Scale, scale: float, width: float) -> list[Markup]:
    most = int((width - 24) / _LETTER)
    at, middle = top + 26, across(scale * each.mean)
    parts = [text((12.0, top + 4), shortened(each.name, most), class_="label")]
    if each.interval is not None:
        ends = [scale * (each.mean + side * each.interval.half) for side in (-1, 1)]
        parts.append(line((across(ends[0]), at), (across(ends[1]), at), f"interval c-{each.series}"))
    if len(each.differences) > 1:
        parts += [
            mark((across(scale * value), at), "circle", f"c-{each.series} faint", 4)
            for _, value in each.differences
        ]
    return [*parts, mark((middle, at), "circle", f"c-{each.series}", 6)]


def reliability(networks: Sequence[Calibration]) -> Markup:
    """How often each network is right where it is so sure; larger marks stand for more samples."""
    samples = sum(each.samples for each in networks[0].bins)

    def draw(width: float) -> tuple[Point, Sequence[Markup]]:
        side = min(width, 460.0)
        height = side + 10
        across = Scale(0.0, 1.0, _LEFT, side - _RIGHT)
        up = Scale(0.0, 1.0, height - _BOTTOM, _TOP)
        shown = share("classes")
        parts = axes(across, up, ("how sure it is", "how often it is right"), (shown, shown), (5, 5))
        parts.append(line((across(0.0), up(0.0)), (across(1.0), up(1.0)), "axis"))
        for network in networks:
            places = [(across(each.confidence), up(each.accuracy)) for each in network.bins]
            parts.append(path(places, f"line thin c-{network.series}"))
            for place, each in zip(places, network.bins, strict=True):
                radius = 2.0 + 5.0 * (each.samples / samples) ** 0.5
                parts.append(mark(place, shape_of(network.series), f"c-{network.series}", radius))
        return (side, height), parts

    told = "; ".join(
        f"{each.name}: expected calibration error {figures.score('classes', each.error)}" for each in networks
    )
    return both("How often a network is right where it is so sure", f"{told}.", draw)
