"""Figures in words: times, sizes, scores, as they stand in plans, progress lines and tables."""

from __future__ import annotations

from collections.abc import Mapping

#: Kinds of tasks whose scores are shares from 0 to 1.
_SHARES = ("classes", "labels", "tokens")


def clock(seconds: float) -> str:
    """`0:34`, `12:05`, `5:28:10`."""
    whole = round(max(seconds, 0))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def count(number: int, noun: str) -> str:
    """`1 epoch`, `1,200 steps`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def size(number: float) -> str:
    """Bytes as `0.25 MB`, `12 MB`, `1.4 GB`."""
    million = number / 1e6
    if million < 0.1:
        return f"{number / 1e3:.1f} kB"
    if million >= 1000:
        return f"{million / 1000:.1f} GB"
    return f"{million:.0f} MB" if million >= 10 else f"{million:.2f} MB"


def latency(seconds: float) -> str:
    """A latency in milliseconds with three digits that count."""
    milliseconds = seconds * 1e3
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2
    return f"{milliseconds:.{digits}f} ms"


def latency_short(seconds: float) -> str:
    """A latency at the axis of a picture: no digit that does not count."""
    return f"{seconds * 1e3:.3g} ms"


def is_share(kind: str) -> bool:
    """Whether the scores of a kind of tasks are shares from 0 to 1."""
    return kind in _SHARES


def part(seconds: float, of: float) -> str:
    """A part of a time without its unit, which is `unit` of the whole.

    Args:
        seconds: the part.
        of: the whole, in seconds.
    """
    if unit(of) == "s":
        return f"{seconds:.2f}" if of < 10 else f"{seconds:.1f}"
    digits = 0 if of >= 0.1 else 1 if of >= 0.001 else 2
    return f"{seconds * 1e3:.{digits}f}"


def unit(seconds: float) -> str:
    """The unit that a time is shown in, `ms` or `s`."""
    return "ms" if seconds < 1 else "s"


def score(kind: str, value: float) -> str:
    """A score as `86.2 %`, or as a plain number where the task's score is no share."""
    return f"{value:.1%}".replace("%", " %") if kind in _SHARES else f"{value:.3f}"


def points(kind: str, difference: float) -> str:
    """A difference of two scores as `1.9 points`, or as a plain number."""
    return f"{abs(difference) * 100:.1f} points" if kind in _SHARES else f"{abs(difference):.3f}"


def terms(values: Mapping[str, float]) -> str:
    """Unweighted loss terms as `hard 0.441  soft 1.207`."""
    return "  ".join(f"{name} {short(value)}" for name, value in values.items())


def short(value: float) -> str:
    """A loss in few characters."""
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.2e}"
