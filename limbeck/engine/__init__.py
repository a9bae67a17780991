"""The training loop on Accelerate: `fit`, `evaluate`, exact resume. Light until one of them is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.engine.cost import Cost as Cost
    from limbeck.engine.evaluation import evaluate as evaluate
    from limbeck.engine.fitting import fit as fit
    from limbeck.engine.interruption import Interruption as Interruption
    from limbeck.engine.listener import Listener as Listener
    from limbeck.engine.result import Fit as Fit
    from limbeck.engine.settings import Machine as Machine
    from limbeck.engine.settings import Training as Training

_HOMES = {
    "Cost": "limbeck.engine.cost",
    "Fit": "limbeck.engine.result",
    "Interruption": "limbeck.engine.interruption",
    "Listener": "limbeck.engine.listener",
    "Machine": "limbeck.engine.settings",
    "Training": "limbeck.engine.settings",
    "evaluate": "limbeck.engine.evaluation",
    "fit": "limbeck.engine.fitting",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
