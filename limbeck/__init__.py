"""Knowledge distillation: from a big trained model to a measured, exported small one.

Every public name is loaded when it is first used, so `import limbeck` imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.cache import CachedTeacher
    from limbeck.engine import evaluate, fit
    from limbeck.method import Card, Method, Stage, Update
    from limbeck.models.folder import load
    from limbeck.recipe import Recipe
    from limbeck.record import Losses, Record
    from limbeck.run import (
        Run,
        check,
        compare,
        distill,
        export,
        list_layers,
        list_methods,
        list_recipes,
        measure,
        predict,
        report,
        verify_cache,
        write_cache,
    )
    from limbeck.task import Classification, Task
    from limbeck.teacher import Teacher

__version__ = "0.1.0"

__all__ = [
    "CachedTeacher",
    "Card",
    "Classification",
    "Losses",
    "Method",
    "Recipe",
    "Record",
    "Run",
    "Stage",
    "Task",
    "Teacher",
    "Update",
    "check",
    "compare",
    "distill",
    "evaluate",
    "export",
    "fit",
    "list_layers",
    "list_methods",
    "list_recipes",
    "load",
    "measure",
    "predict",
    "report",
    "verify_cache",
    "write_cache",
]

_HOME = {
    "CachedTeacher": "limbeck.cache",
    "Card": "limbeck.method",
    "Classification": "limbeck.task",
    "Losses": "limbeck.record",
    "Method": "limbeck.method",
    "Recipe": "limbeck.recipe",
    "Record": "limbeck.record",
    "Run": "limbeck.run",
    "Stage": "limbeck.method",
    "Task": "limbeck.task",
    "Teacher": "limbeck.teacher",
    "Update": "limbeck.method",
    "check": "limbeck.run",
    "compare": "limbeck.run",
    "distill": "limbeck.run",
    "evaluate": "limbeck.engine",
    "export": "limbeck.run",
    "fit": "limbeck.engine",
    "list_layers": "limbeck.run",
    "list_methods": "limbeck.run",
    "list_recipes": "limbeck.run",
    "load": "limbeck.models.folder",
    "measure": "limbeck.run",
    "predict": "limbeck.run",
    "report": "limbeck.run",
    "verify_cache": "limbeck.run",
    "write_cache": "limbeck.run",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at its first use, and keep it."""
    if name not in _HOME:
        raise AttributeError(f"module 'limbeck' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, also those not loaded yet."""
    return sorted([*globals(), *__all__])
