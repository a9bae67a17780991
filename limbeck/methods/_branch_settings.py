"""What MHKD refuses of its settings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from limbeck.errors import RequestError
from limbeck.losses import check_not_negative, check_temperature
from limbeck.methods._agreement import check_choice
from limbeck.methods._branches import HeadInit, HeadKind

if TYPE_CHECKING:
    from limbeck.methods.mhkd import MHKD


def check_settings(method: MHKD) -> None:
    """Refuses numbers out of range, names that mean nothing, and settings that exclude each other.

    Args:
        method: with its settings and taps, before it has heads.
    """
    for name, options in (
        ("teacher_heads", ("joint", "pretrained")),
        ("head", get_args(HeadKind)),
        ("head_init", get_args(HeadInit)),
    ):
        check_choice(name, getattr(method, name), options)
    check_temperature(method.temperature)
    weights = ("hard_weight", "soft_weight", "beta", "head_soft_weight", "head_hard_weight")
    check_not_negative(**{name: getattr(method, name) for name in weights})
    for name in (
        "width",
        "teacher_width",
        "num_linear",
        "teacher_num_linear",
        "head_epochs",
        "stop_heads_after",
    ):
        count = getattr(method, name)
        if count is not None and count < 1:
            raise RequestError(f"{name} {count}; needed a number >= 1")
    _check_pairs(method)
    _check_weights(method)
    _check_read(method)


def _check_pairs(method: MHKD) -> None:
    own, others = (len(method.tapped[side]) for side in ("student", "teacher"))
    if method.target == "branch" and own != others:
        raise RequestError(
            f"{own} student taps and {others} teacher taps; a pair has one of each",
            fix="as many layers of the student as of the teacher, from input to output",
        )


def _check_weights(method: MHKD) -> None:
    """Refuses weights that leave the student no term; warns of heads that learn nothing."""
    if method.hard_weight == method.soft_weight == 0:
        if method.beta * (method.head_soft_weight + method.head_hard_weight) == 0:
            raise RequestError("all weights of the student's terms are 0", fix="hard_weight = 0.1")
        if method.stop_heads_after is not None:
            raise RequestError(
                "stop_heads_after leaves no term, as hard_weight and soft_weight are 0",
                fix="soft_weight = 0.9, or leave stop_heads_after out",
            )
    if method.beta == 0 and method.is_joint:
        warnings.warn(
            "beta 0: the student's heads learn nothing, and the teacher's train for nothing", stacklevel=4
        )


def _check_read(method: MHKD) -> None:
    """Refuses a setting that another one keeps from being read."""
    joint_of_classes = method.is_joint and method.task.kind == "classes"
    unknown = set(method.layouts or {}) - {"student", "teacher"}
    for name, idle, reader in (
        ("layouts", bool(method.layouts) and method.head == "linear", 'head = "conv"'),
        ("layouts", bool(unknown), "the keys student and teacher"),
        ("head_epochs", method.head_epochs is not None and method.is_joint, 'teacher_heads = "pretrained"'),
        ("detach_target", not (method.detach_target or joint_of_classes), "joint teacher heads of classes"),
    ):
        if idle:
            raise RequestError(
                f"{name} {getattr(method, name)!r} is only read with {reader}", fix=f"leave {name} out"
            )


def dropout_of(given: float | Sequence[float], number: int) -> list[float]:
    """The chance of each head to be left out of a step.

    Raises:
        RequestError: not one for each, or not between 0 and 1.
    """
    chances = [float(given)] * number if isinstance(given, (int, float)) else [float(each) for each in given]
    if len(chances) != number or not all(0 <= chance <= 1 for chance in chances):
        raise RequestError(
            f"head_dropout {given} for {number} heads; needed one number 0 to 1, or one for each head"
        )
    return chances


def other_classes(student: Sequence[int], teacher: Sequence[int]) -> RequestError:
    """What is said of outputs of other classes, and what works with them."""
    return RequestError(
        f"outputs of the student {tuple(student)} and of the teacher {tuple(teacher)}; both must have the "
        "same classes in the same order",
        fix='soft_weight = 0 and target = "branch": heads alone, whatever the classes of the teacher',
    )
