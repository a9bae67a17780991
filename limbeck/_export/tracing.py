"""A student as the exporters take it: alone, on the processor, in float32, with a batch that is free."""

from __future__ import annotations

import copy
import re
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._taps.paths import plain
from limbeck.errors import RequestError, RunError
from limbeck.models.preprocessing import Preprocessed, Preprocessing
from limbeck.task import Classification, Task

#: Batch of the traced example: a number that stands out where a network has frozen it.
TRACED = 13


class Traced(nn.Module):
    """A network with its inputs in a row and one tensor as output.

    Args:
        network: a copy of it is taken.
        example: inputs as the data give them: a tensor, a mapping of keyword inputs, or a batch.
        task: reads the output; classification unless given.
        in_graph: whether the preprocessing is a part of it.

    Attributes:
        names: of its inputs.
        outside: the preprocessing that is left to do before it.
    """

    def __init__(
        self, network: nn.Module, example: Any, task: Task | None = None, *, in_graph: bool = True
    ) -> None:
        super().__init__()
        copied = copy.deepcopy(plain(network)).cpu().float().eval()
        copied = copied.to(memory_format=torch.contiguous_format).requires_grad_(False)
        self.whole: list[Preprocessed] = []  # a list: no part of what is traced
        self.outside = Preprocessing()
        if not in_graph:
            if not isinstance(copied, Preprocessed):
                raise RequestError(
                    "the student is no single network, so its preprocessing cannot be left out",
                    fix='preprocessing = "graph"',
                )
            self.whole, self.outside = [copied], copied.preprocessing
            copied = copied.body
        self.network = copied
        inputs = inputs_of(example)
        self.keywords = tuple(inputs) if isinstance(inputs, Mapping) else ()
        self.names = self.keywords or ("inputs",)
        self.task = task or Classification()
        self.example = self.values(inputs)
        self.eval()

    def forward(self, *values: Tensor) -> Tensor:
        """Inputs in the order of `names` -> logits."""
        if not self.keywords:
            return self.task.read(self.network(*values))  # type: ignore[no-any-return]
        named = dict(zip(self.keywords, values, strict=True))
        return self.task.read(self.network(**named))  # type: ignore[no-any-return]

    def values(self, inputs: Any) -> list[Tensor]:
        """Inputs of the data, in any form, as they enter `forward`."""
        found = inputs_of(inputs)
        values = list(found.values()) if isinstance(found, Mapping) else [found]
        for whole in self.whole:
            values = [whole.if_pixels(value) for value in values]
        return [value.contiguous() for value in values]

    def of_batch(self, number: int) -> list[Tensor]:
        """The example repeated and cut to a batch of this size."""
        return [
            value.repeat(-(-number // len(value)), *[1] * (value.ndim - 1))[:number].contiguous()
            for value in self.example
        ]

    def dynamic_shapes(self) -> tuple[tuple[dict[int, Any], ...]]:
        """What is free in each input: the batch, and the length of texts."""
        batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
        shapes = tuple({0: batch, **({1: length} if _is_text(value) else {})} for value in self.example)
        return (shapes,)

    @property
    def bytes(self) -> int:
        """Of all that it stores."""
        return sum(value.numel() * value.element_size() for value in self.state_dict().values())


def inputs_of(given: Any) -> Any:
    """The inputs in a batch in any form, on the processor: a tensor, or a mapping of keyword inputs.

    Raises:
        RequestError: it is something else.
    """
    if isinstance(given, Mapping) and "inputs" in given:
        given = given["inputs"]
    if isinstance(given, Mapping):
        return {name: value.cpu() for name, value in given.items()}
    if not isinstance(given, Tensor):
        raise RequestError(f"inputs of type {type(given).__name__}; needed a tensor, or a mapping of tensors")
    return given.cpu()


def _is_text(value: Tensor) -> bool:
    return not value.is_floating_point() and value.ndim == 2


def not_exported(traced: Traced, error: BaseException, what: str) -> RunError:
    """The refusal of a network that cannot be traced, with the module where tracing stopped.

    Args:
        traced: the network.
        error: what the exporter raised.
        what: the format, as "ONNX".
    """
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    module, line = _where(traced, first.__traceback__)
    reason = str(first).strip().partition("\n")[0] or type(first).__name__
    return RunError(
        f"the network cannot be exported to {what}: {module}: {reason}",
        where=line,
        fix="a forward whose shapes and branches do not depend on values",
    )


def _where(traced: Traced, trace: types.TracebackType | None) -> tuple[str, str | None]:
    """The innermost of our modules that a traceback passes through, and the line of its code."""
    names = {id(module): name for name, module in traced.named_modules()}
    module, line = "the network", None
    library = str(Path(torch.__file__).parent)
    for frame, number in traceback.walk_tb(trace):
        owner = frame.f_locals.get("self")
        if frame.f_code.co_filename.startswith(library) or owner is traced:
            continue
        if isinstance(owner, nn.Module) and id(owner) in names:
            module = f"module {short(names[id(owner)])!r} ({type(owner).__name__})"
            line = f"{frame.f_code.co_filename}:{number}"
    return module, line


def short(name: str) -> str:
    """A module's name without our wrappers."""
    return re.sub(r"^network\.?", "", name).removeprefix("body.") or "the network"
