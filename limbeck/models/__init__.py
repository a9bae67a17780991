"""Networks by name, their preprocessing, their weights, and the folder of a finished student.

Every public name is loaded when it is first used, so importing this package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.models.building import Architecture, Built
    from limbeck.models.card import CardFacts
    from limbeck.models.folder import load, save_student
    from limbeck.models.loaded import Loaded
    from limbeck.models.preprocessing import Preprocessed, Preprocessing, pixel_statistics
    from limbeck.models.registry import build, built_in_names, check_spec, prepare
    from limbeck.models.weights import load_weights

__all__ = [
    "Architecture",
    "Built",
    "CardFacts",
    "Loaded",
    "Preprocessed",
    "Preprocessing",
    "build",
    "built_in_names",
    "check_spec",
    "load",
    "load_weights",
    "pixel_statistics",
    "prepare",
    "save_student",
]

_HOME = {
    "Architecture": "building",
    "Built": "building",
    "CardFacts": "card",
    "Loaded": "loaded",
    "Preprocessed": "preprocessing",
    "Preprocessing": "preprocessing",
    "build": "registry",
    "built_in_names": "registry",
    "check_spec": "registry",
    "load": "folder",
    "load_weights": "weights",
    "pixel_statistics": "preprocessing",
    "prepare": "registry",
    "save_student": "folder",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at its first use, and keep it."""
    if name not in _HOME:
        raise AttributeError(f"module 'limbeck.models' has no attribute {name!r}")
    value = getattr(import_module(f"limbeck.models.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, also those not loaded yet."""
    return sorted([*globals(), *__all__])
