"""Facts to HTML. Whatever comes from data is escaped, and the page forbids itself scripts and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from limbeck._clock import PARTS
from limbeck._report import pictures, words
from limbeck._report.facts import Calibration, ClassRow, Curve, Model, Page, Split
from limbeck._show import figures

#: A mark of every page, by which one is known before it is overwritten.
GENERATOR = '<meta name="generator" content="limbeck">'

_TEMPLATES = Path(__file__).parent / "templates"
_FEW = 8  # classes at either end, where there are too many to be shown at once
_ALL = 20  # classes up to which all are shown at once
_MOST = 200  # folded rows of classes; the others are in plots/classes.csv


def render(page: Page) -> str:
    """The page as one HTML file in ASCII.

    Args:
        page: what it says.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tidy"] = words.tidy
    environment.globals |= {"figures": figures, "pictures": pictures, "words": words}
    style = (_TEMPLATES / "style.css").read_text("utf-8")
    made = environment.get_template("page.html").render(page=page, shown=_Shown(page), style=style)
    return made.encode("ascii", "xmlcharrefreplace").decode("ascii")


class _Shown:
    """What the templates compute from a page.

    Args:
        page: what it says.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def score(self, value: float) -> str:
        """A score in words."""
        return figures.score(self.page.kind, value)

    def timed(self) -> list[Model]:
        """The models of the picture; none where fewer than two were timed."""
        timed = [model for model in self.page.models if model.seconds is not None]
        return timed if len(timed) > 1 else []

    def sections(self) -> list[tuple[str, str]]:
        """Anchor and name of every part of the page there is, in order."""
        page, one = self.page, self.page.runs[0] if len(self.page.runs) == 1 else None
        found = [
            ("findings", "Findings", bool(page.findings)),
            ("models", "Models", bool(page.models)),
            ("trade", "Speed", bool(self.timed())),
            ("helped", "Did it help", bool(page.helped)),
            ("training", "Training", bool(page.validation or page.terms)),
        ]
        if one is None:
            found.append(("runs", "The runs", bool(page.runs)))
        else:
            found += [
                ("classes-1", "Classes", one.classes is not None),
                ("agreement-1", "Agreement", one.agreement is not None or bool(one.calibration)),
                ("disputes-1", "In dispute", bool(one.disputes)),
                ("files-1", "Files", bool(one.files)),
                ("cost-1", "Cost", bool(one.phases or one.splits)),
                ("repeat-1", "Repeat it", bool(one.command)),
            ]
        return [(anchor, name) for anchor, name, there in found if there]

    def curve_legend(self, curves: Sequence[Curve]) -> Any:
        """The legend of a picture of lines; curves of several seeds share an entry."""
        told = [
            (each.series, pictures.shape_of(each.series) if each.chosen else "", each.name) for each in curves
        ]
        return pictures.legend(list(dict.fromkeys(told)))

    def calibration_legend(self, networks: Sequence[Calibration]) -> Any:
        """The legend of the picture of calibration."""
        return pictures.legend(
            [(each.series, pictures.shape_of(each.series), each.name) for each in networks]
        )

    def class_rows(self, rows: Sequence[ClassRow]) -> tuple[list[ClassRow], list[ClassRow]]:
        """Classes by change, and those that are folded."""
        ordered = sorted(rows, key=lambda row: -row.change)
        if len(ordered) <= _ALL:
            return ordered, []
        return [*ordered[:_FEW], *ordered[-_FEW:]], ordered[_FEW:-_FEW][:_MOST]

    def reach(self, rows: Sequence[ClassRow]) -> tuple[float, float]:
        """Where the bars of the changes begin, 0..1 from left to right, and the width of a change of 1."""
        changes = [row.change for row in rows]
        lost, gained = max(0.0, -min(changes)), max(0.0, max(changes))
        whole = max(lost + gained, 1e-9)
        return lost / whole, 1 / whole

    def longest(self, splits: Sequence[Split]) -> float:
        """Seconds of the longest step."""
        return max(sum(split.seconds.values()) for split in splits)

    def seen_parts(self, splits: Sequence[Split], whole: float) -> list[str]:
        """The parts of a step that can be seen in any of the bars."""
        seen = {name for split in splits for name, _ in self.parts(split.seconds, whole)}
        return [name for name in PARTS if name in seen]

    def parts(self, seconds: Mapping[str, float], whole: float) -> list[tuple[str, float]]:
        """Name and share of the longest step of each part of a step that can be seen."""
        return [(name, seconds[name] / whole) for name in PARTS if seconds.get(name, 0.0) > 0.0005 * whole]
