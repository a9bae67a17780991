"""One run of a comparison in a process of its own: `python -m limbeck._compare.cell RECIPE FOLDER`.

A run that exists goes on. What went wrong is one JSON object on stdout. The process ends with the one that
started it: its stdin is a pipe that the other holds open.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from limbeck._run import console, job
from limbeck._run.folder import RunFolder
from limbeck._run.screen import Screen
from limbeck.errors import LimbeckError
from limbeck.recipe import Recipe


def main(arguments: Sequence[str]) -> int:
    """Runs a recipe in a folder, or goes on with the run there; gives the exit code."""
    recipe, path = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder, screen = RunFolder(Path(path)), Screen(live=False)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the user's own code prints
            if folder.is_run:
                job.go_on(folder, dry_run=False, screen=screen)
            else:
                job.start(Recipe.load(recipe), recipe, path, dry_run=False, screen=screen)
    except LimbeckError as error:
        console.give(json.dumps({"message": error.message, "fix": error.fix}))
        return error.exit_code
    return 0


def _end_with_parent() -> None:
    """Waits until nobody holds the pipe any more; the checkpoints on disk are whole at any moment."""
    os.read(sys.stdin.fileno(), 1)  # not by sys.stdin, whose lock a blocked thread would hold at the end
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
