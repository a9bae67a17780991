"""The end of a run: the test set read once, the student saved, exported, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from limbeck._run import networks
from limbeck._run.folder import RunFolder
from limbeck._run.phases import Trained
from limbeck._run.screen import Screen
from limbeck._run.session import Prepared
from limbeck.engine import evaluate


def finish(
    prepared: Prepared,
    folder: RunFolder,
    screen: Screen,
    done: Mapping[str, Trained],
    stop_if_asked: Callable[[], None],
) -> dict[str, Any]:
    """What is added to run.json once everything is trained.

    Args:
        prepared: the run.
        folder: of the run.
        screen: where it speaks.
        done: the phases.
        stop_if_asked: raises when a signal came.
    """
    began = time.monotonic()
    session = prepared.session
    task, splits = session.splits.task, session.splits
    data, split = _final_data(prepared)
    found: dict[str, Any] = {}
    for name, trained in done.items():
        key = "distilled" if name == "distil" else name.removesuffix(" 0")
        network = trained.method.deployable()
        found[key] = {
            "parameters": networks.count(network),
            "bytes": networks.stored_bytes(network),
            "score": evaluate(network, data, task)[task.score_name],
        }
    screen.finished("finish", "", time.monotonic() - began)
    return {
        "networks": found,
        "score": {"split": split, "kind": task.kind, "name": task.score_name, "samples": len(data)},
        "files": ["student/"],
    }


def _final_data(prepared: Prepared) -> tuple[Any, str]:
    splits = prepared.session.splits
    if splits.test is not None:
        return splits.test, "test"
    return splits.validation, "validation"
