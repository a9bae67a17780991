"""Golden values: stored inputs with what the authors' code or the equations make of them.

`python -m tests.golden DIR` runs every `.npz` file of a folder against the implementation. A file belongs
to the method of the longest slug that its name starts with; its case is recognised by its arrays, whatever
the rest of the name.

Adding the cases of a method: write `tests/golden/case_<slug>.py` with `CASES: tuple[Case, ...]`, and add
its line to `MODULES` below. A case computes results by name from the arrays of a file:

    def losses(file: Arrays) -> Results:
        student = file.leaf("logits_s")                 # a float tensor that requires grad
        loss = softened_divergence(student, file["logits_t"], file.number("T"))
        return {"kl_loss": loss, "kl_grad": gradient(loss, student)}

    CASES = (Case("soft", needs=("logits_s", "kl_loss"), results=losses),)

A file fits the first case whose `needs` it holds. Then every array of the file must have been read by the
case (an input) or be among its results (which are compared), and every result must be in the file:
anything else fails. Arrays that only some files hold are asked for with `"name" in file`, families of
arrays with `file.names("q*_w1")`. Traces are run through the method, as a user's loop would.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

#: Methods that are built: the module of their cases.
MODULES = {
    "cmkd": "tests.golden.case_cmkd",
    "kd": "tests.golden.case_kd",
    "lshfm": "tests.golden.case_lshfm",
    "mhkd": "tests.golden.case_mhkd",
    "mlkd": "tests.golden.case_mlkd",
    "peer_mutual_kd": "tests.golden.case_peer_mutual_kd",
    "semckd": "tests.golden.case_semckd",
    "simkd": "tests.golden.case_simkd",
    "sskd": "tests.golden.case_sskd",
    "uhkd": "tests.golden.case_uhkd",
    "unikd": "tests.golden.case_unikd",
}

#: Every method that golden files exist for. Those without a module are not built yet.
SLUGS = (
    "alp_kd",
    "backward_kd",
    "beyond_compression",
    "cmkd",
    "crosskd",
    "hpm_kd",
    "ig_kd",
    "kd",
    "lshfm",
    "makd",
    "mhd",
    "mhkd",
    "mlkd",
    "mlkd_bert",
    "mmkd",
    "peer_mutual_kd",
    "residual_kd",
    "semckd",
    "simkd",
    "sskd",
    "uhkd",
    "unikd",
)

Results = Mapping[str, Tensor | np.ndarray | float | Sequence[float] | Sequence[Tensor]]


class Arrays:
    """The arrays of a golden file as tensors; it remembers which were read.

    Args:
        arrays: as loaded from the file.
        dtype: the type of the floating ones.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float64) -> None:
        self.arrays = dict(arrays)
        self.dtype = dtype
        self.read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> Tensor:
        """The array as a tensor of its own, without gradient; floating ones in `dtype`."""
        self.read.add(name)
        value = torch.from_numpy(np.array(self.arrays[name]))
        return value.to(self.dtype) if value.is_floating_point() else value

    def leaf(self, name: str) -> Tensor:
        """The array as a tensor that requires grad."""
        return self[name].requires_grad_()

    def number(self, name: str) -> float:
        """A scalar array as a Python number, in full precision."""
        self.read.add(name)
        return float(self.arrays[name].item())

    def integer(self, name: str) -> int:
        """A scalar array as a Python integer."""
        self.read.add(name)
        return int(self.arrays[name].item())

    def names(self, pattern: str) -> list[str]:
        """The names of the file that fit a shell pattern, in the order of the file."""
        return fnmatch.filter(self.arrays, pattern)


@dataclass(frozen=True)
class Case:
    """What one kind of file holds and how its values are made.

    Args:
        name: shown in reports.
        needs: arrays that a file must hold to be of this kind.
        results: computes the values to compare, by array name.
        tolerance: largest difference in float64, relative to an entry where that is above 1.
        tolerance32: the same in float32, relative to the largest entry of the array, at least 1.
        tolerances: for single arrays in float64, by name.
        wide_only: arrays that only make sense in float64.
    """

    name: str
    needs: Sequence[str]
    results: Callable[[Arrays], Results]
    tolerance: float = 1e-9
    tolerance32: float = 1e-5
    tolerances: Mapping[str, float] = field(default_factory=dict)
    wide_only: Sequence[str] = ()


def gradient(loss: Tensor, *leaves: Tensor) -> Tensor:
    """The gradient of a scalar for one leaf, or stacked for several; 0 where it does not reach."""
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    each = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
    return each[0] if len(each) == 1 else torch.stack(each)
