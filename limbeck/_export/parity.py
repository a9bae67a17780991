"""How far a file for the device agrees with the network that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck._export.tracing import Traced
from limbeck.errors import RunError

#: Batch sizes at which every file is run before it is kept.
BATCHES = (1, 2, 7)
#: Largest difference of an output: absolute, or relative to the largest output where that is above `LARGE`.
TOLERANCE = 1e-4
LARGE = 10.0

#: A file in its runtime: inputs in the order of their names -> output [B, ...].
Run = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Parity:
    """What a comparison found.

    Attributes:
        difference: largest absolute difference of an output; infinite where one side alone is not finite.
        largest: output of the network, absolute.
        samples: that were compared.
    """

    difference: float = 0.0
    largest: float = 0.0
    samples: int = 0

    def within(self, tolerance: float) -> bool:
        """Whether the difference is tolerable."""
        return self.difference <= tolerance * (self.largest if self.largest > LARGE else 1.0)


def compare(traced: Traced, run: Run, batches: Iterable[object], what: str, tolerance: float) -> Parity:
    """Runs a file at all batch sizes and on all batches.

    Args:
        traced: the network.
        run: the file.
        batches: inputs of the data.
        what: the file in messages, as "the ONNX file".
        tolerance: see `TOLERANCE`.

    Raises:
        RunError: it does not run, gives another shape, or differs by more.
    """
    found = Parity()
    for number in BATCHES:
        found = _added(found, traced, run, traced.of_batch(number), what)
    for batch in batches:
        found = _added(found, traced, run, traced.values(batch), what)
    if not found.within(tolerance):
        raise RunError(
            f"{what} differs from PyTorch by {found.difference:.2g}, more than {tolerance:.0e}, "
            "so it was not kept",
            fix="a network without random or value-dependent parts in eval",
        )
    return found


def _added(found: Parity, traced: Traced, run: Run, values: Sequence[Tensor], what: str) -> Parity:
    with torch.inference_mode():
        expected = traced(*values)
    given = run(values)
    if given.shape != expected.shape:
        raise RunError(
            f"{what} gives {list(given.shape)} for {list(expected.shape)} at batch {len(values[0])}, "
            "so it was not kept"
        )
    difference = (given - expected).abs()
    largest = float("inf") if bool(difference.isnan().any()) else float(difference.max())
    return Parity(
        max(found.difference, largest),
        max(found.largest, float(expected.abs().max())),
        found.samples + len(values[0]),
    )
