"""The networks written here, by name."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from limbeck.errors import RequestError
from limbeck.models.building import Architecture, Raw, arguments, check_options

if TYPE_CHECKING:
    from torch import nn

    from limbeck.models.registry import Entry


def build(entry: Entry, architecture: Architecture) -> Raw:
    """The network that an entry of the table names."""
    module, _, name = entry.home.partition(":")
    function = cast("Callable[..., nn.Module]", getattr(importlib.import_module(module), name))
    known = arguments(function)
    given = {"num_classes": architecture.num_classes, **_input(architecture)}
    own = [option for option in known if option not in (*entry.fixed, "num_classes", "channels")]
    check_options(architecture.spec, architecture.options, own)
    hints = typing.get_type_hints(function)
    options = {option: _checked(option, value, hints) for option, value in architecture.options.items()}
    values = {**{key: value for key, value in given.items() if key in known}, **entry.fixed, **options}
    if "channels" in known and len(architecture.size) != 2:
        raise RequestError(
            f"{architecture.spec} is for pictures; these inputs are none", fix='model = "mlp" for rows'
        )
    return Raw(function(**values))


def _input(architecture: Architecture) -> dict[str, int]:
    features = architecture.channels
    for side in architecture.size:
        features *= side
    return {"channels": architecture.channels, "num_features": features}


def _checked(name: str, value: Any, hints: dict[str, Any]) -> Any:
    """A value of an option, refused if it is not of the declared type."""
    try:
        return TypeAdapter(hints[name], config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"].lower()
        raise RequestError(f"option {name} = {value!r}: {said}") from None
