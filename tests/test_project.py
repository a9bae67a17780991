"""What holds for the project as a whole."""

from __future__ import annotations

import limbeck


def test_names_are_sorted() -> None:
    assert limbeck.__all__ == sorted(limbeck.__all__)
