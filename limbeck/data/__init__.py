"""Data sets that return inputs, targets and index; sources, views and the loader.

Every public name is loaded when it is first used, so importing this package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.data.dataset import ArrayDataset, Dataset, Splits, as_dataset
    from limbeck.data.draws import split_view, view_number
    from limbeck.data.images import LazyImageDataset, find_unreadable, read_image
    from limbeck.data.loader import Loader
    from limbeck.data.mixing import Mixing
    from limbeck.data.selection import keep_labels
    from limbeck.data.sources import load_source
    from limbeck.data.views import Views

__all__ = [
    "ArrayDataset",
    "Dataset",
    "LazyImageDataset",
    "Loader",
    "Mixing",
    "Splits",
    "Views",
    "as_dataset",
    "find_unreadable",
    "keep_labels",
    "load_source",
    "read_image",
    "split_view",
    "view_number",
]

_HOME = {
    "ArrayDataset": "dataset",
    "Dataset": "dataset",
    "LazyImageDataset": "images",
    "Loader": "loader",
    "Mixing": "mixing",
    "Splits": "dataset",
    "Views": "views",
    "as_dataset": "dataset",
    "find_unreadable": "images",
    "keep_labels": "selection",
    "load_source": "sources",
    "read_image": "images",
    "split_view": "draws",
    "view_number": "draws",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at its first use, and keep it."""
    if name not in _HOME:
        raise AttributeError(f"module 'limbeck.data' has no attribute {name!r}")
    value = getattr(import_module(f"limbeck.data.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, also those not loaded yet."""
    return sorted([*globals(), *__all__])
