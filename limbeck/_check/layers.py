"""Layer paths of a recipe: each is tried by itself, so that all wrong ones are named."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck._check.desk import Desk
from limbeck._check.teachers import Given
from limbeck._recipe.sections import TapNames
from limbeck._recipe.toml import Path
from limbeck._run.session import Session
from limbeck._taps.paths import nearest_fired
from limbeck._taps.survey import survey
from limbeck.errors import RequestError, nearest
from limbeck.taps import Taps

_FEW = 2


def check_paths(desk: Desk, session: Session, teachers: Sequence[Given], students: Sequence[Given]) -> None:
    """Paths that name no layer, or one that is not called."""
    taps, task = session.recipe.method.taps, session.splits.task
    if taps is None or not session.chosen.method.card.taps:
        return
    desk.looks("K101")
    batch = task.batch(session.train.batch(list(range(min(_FEW, len(session.train))))))
    for side, paths, given in (("student", taps.student, students), ("teacher", taps.teacher, teachers)):
        for number, path in enumerate(paths):
            network: nn.Module = given[0].network
            placed = None
            try:
                placed = Taps(network, (path,), task=task, trainable=side == "student")
                placed.dry(batch)
            except RequestError as error:
                fired = survey(network, batch, task, training=side == "student").fired()
                close, near = nearest(path, fired), nearest_fired(path, fired)
                listed = f"limbeck layers {given[0].built.architecture.spec} lists them"
                missing = "has no layer" in error.message
                desk.finds(
                    "K101",
                    f"the {side} has no layer {path!r}" if missing else error.message,
                    *("method", "taps", side, number),
                    fix=f'"{close[0]}" in its place' if close else listed,
                    detail=f"Called are: {', '.join(near or fired[:5])}.",
                )
            finally:
                if placed is not None:
                    placed.remove()


def blamed(taps: TapNames, said: str) -> Path | None:
    """Where in [method] the path stands that a message quotes: of the side that it names, if it names one."""
    quoted: list[tuple[str, Path]] = [
        (side, ("taps", side, number))
        for side, paths in (("student", taps.student), ("teacher", taps.teacher))
        for number, path in enumerate(paths)
        if repr(path) in said
    ]
    named = [path for side, path in quoted if f"{side} layer" in said]
    return next(iter([*named, *(path for _, path in quoted)]), None)
