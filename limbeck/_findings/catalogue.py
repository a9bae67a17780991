"""All codes: the one source of `limbeck check --explain`, of the page of findings and of the report."""

from __future__ import annotations

from limbeck._findings.errors_of_check import ERRORS
from limbeck._findings.explained import Explained
from limbeck._findings.of_runs import OF_RUNS
from limbeck._findings.warnings_of_check import WARNINGS
from limbeck.errors import RequestError, nearest

#: By code, in order.
CATALOGUE: dict[str, Explained] = {each.code: each for each in (*ERRORS, *WARNINGS, *OF_RUNS)}


def explain(code: str) -> str:
    """What a code means, why it matters, what to do.

    Args:
        code: as `K104`, in any case.

    Raises:
        RequestError: there is no such code; with the nearest.
    """
    known = CATALOGUE.get(code.strip().upper())
    if known is None:
        first, *_, last = CATALOGUE
        near = nearest(code, CATALOGUE)
        raise RequestError(
            f"there is no finding {code!r}; codes go from {first} to {last}",
            near=near[1:],
            fix=f"limbeck check --explain {near[0] if near else first}",
        )
    return known.text()


def page() -> str:
    """All codes as Markdown, without a title."""
    return "\n\n".join(each.markdown() for each in CATALOGUE.values())
