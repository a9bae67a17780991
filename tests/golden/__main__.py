"""`python -m tests.golden DIR`: a line a file, then `N passed, N failed`; exit code 1 if any failed."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.golden.checker import check_folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder with golden .npz files")
    folder = parser.parse_args(arguments).folder
    if not any(folder.glob("*.npz")):
        print(f"no .npz file in {folder}", file=sys.stderr)
        return 2
    states: Counter[str] = Counter()
    for outcome in check_folder(folder):
        states[outcome.state] += 1
        print(outcome.text, flush=True)
    if states["not built"]:
        print(f"{states['not built']} of methods not built yet")
    print(f"{states['passed']} passed, {states['failed']} failed")
    return 1 if states["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
