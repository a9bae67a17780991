"""What every loss refuses, or warns of, before it computes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from limbeck.errors import RequestError, RunError


def check_temperature(temperature: float) -> None:
    """Refuses a temperature that is not above 0."""
    if not 0 < temperature < float("inf"):
        raise RequestError(f"temperature {temperature}; needed a number above 0", fix="temperature = 4.0")


def check_not_negative(**numbers: float) -> None:
    """Refuses numbers, by name, that are below 0 or not finite."""
    for name, number in numbers.items():
        if not 0 <= number < float("inf"):
            raise RequestError(f"{name} {number}; needed a number >= 0")


def check_same_shape(student: Tensor, teacher: Tensor, what: str = "logits") -> None:
    """Refuses student and teacher values of different shapes; the message shows both."""
    if student.shape != teacher.shape:
        raise RequestError(
            f"student {what} {tuple(student.shape)} and teacher {what} {tuple(teacher.shape)}; "
            "both must have one shape"
        )


def check_labels(targets: Tensor, num_classes: int, *, unlabelled: bool = True) -> None:
    """Refuses labels outside 0..K-1. Reads a value back.

    Args:
        targets: [N] int64.
        num_classes: K, the last axis of the logits.
        unlabelled: -1 is allowed too, a sample without a label.
    """
    wrong = (targets < (-1 if unlabelled else 0)) | (targets >= num_classes)
    if bool(wrong.any()):
        raise RequestError(
            f"label {int(targets[wrong][0])} for {num_classes} classes; needed 0 to {num_classes - 1}"
            + (", or -1 for a sample without a label" if unlabelled else "")
        )


def check_finite(
    values: Tensor, what: str, fix: str = "look at the teacher's weights, inputs and precision"
) -> None:
    """Refuses values that are not finite. Reads a value back.

    Args:
        values: [N, ...].
        what: their name in the message, as "teacher logits".
        fix: what to do about it.
    """
    wrong = ~torch.isfinite(values).flatten(1).all(1)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise RunError(
            f"{what} are not finite in {int(wrong.sum())} of {len(wrong)} rows, first in row {first}",
            fix=fix,
        )


def warn_of_probabilities(logits: Tensor, who: str) -> None:
    """Warns where rows are not negative and sum to 1: a softmax would be taken twice. Reads a value back.

    Args:
        logits: [N, K].
        who: "student" or "teacher".
    """
    if logits.shape[-1] < 2 or len(logits) == 0:
        return
    sums = logits.double().sum(-1)
    if bool((logits >= 0).all() & ((sums - 1).abs() < 1e-3).all()):
        warnings.warn(
            f"the {who} seems to return probabilities, not logits: all rows sum to 1 and none is negative; "
            "take away its last softmax",
            stacklevel=2,
        )


def warn_of_constant_rows(logits: Tensor) -> None:
    """Warns of rows of equal logits, whose standardised form has a gradient of about 1e7. Reads a value back.

    Args:
        logits: [N, K].
    """
    if len(logits) and logits.shape[-1] > 1 and bool((logits.amax(-1) == logits.amin(-1)).any()):
        warnings.warn(
            "a row of equal student logits has no deviation: standardised, its gradient is about 1e7",
            stacklevel=2,
        )
