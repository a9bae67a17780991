"""Which layers SimKD connects: where the student is cut, and what of each teacher is reused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._taps.paths import module_names
from limbeck._taps.proposals import few
from limbeck._taps.survey import beside
from limbeck.adaptors import pool
from limbeck.errors import RequestError
from limbeck.methods._classifier import (
    Head,
    averaged,
    calls,
    classifier_of,
    close,
    head_of_teacher,
)
from limbeck.methods._layouts import Layout, picture_of
from limbeck.taps import propose
from limbeck.task import Classification, Task
from limbeck.teacher import Teacher

_SAMPLES = 16  # that show sizes, the teacher's classifier and the sign of its features
_NEGATIVE = -1e-6  # rounding of a value that is never negative


@dataclass(frozen=True)
class Found:
    """What is connected.

    Args:
        cut: the student's layer.
        heads: of each teacher.
        samples: the first of the example, in normal form.
        outputs: K of the student.
    """

    cut: str
    heads: tuple[Head, ...]
    samples: Mapping[str, Any]
    outputs: int


def find(
    student: nn.Module,
    teachers: Sequence[Teacher],
    task: Task | None,
    taps: Mapping[str, Sequence[str]] | None,
    example: Any,
    reuse_from: str | None,
) -> Found:
    """The layers as the user named them, the others by a dry batch.

    Raises:
        RequestError: no example, layers of a wrong number, or a teacher without a classifier to reuse.
    """
    task = task or Classification()
    if example is None:
        raise RequestError(
            "simkd sizes its projector by one batch, and none was given", fix="example=next(iter(loader))"
        )
    samples = few(task.batch(example), _SAMPLES)
    named: Mapping[str, Sequence[str | None]] = _named(taps, len(teachers), reuse_from)
    picture = picture_of(samples)
    heads = tuple(
        head_of_teacher(each.model, samples, task, picture, path=path, reuse_from=reuse_from)
        for each, path in zip(teachers, named["teacher"] or [None] * len(teachers), strict=True)
    )
    outputs, cut = _cut(student, samples, task, picture)
    cut = next(iter(named["student"]), cut)
    if cut is None:
        cut = propose(student, teachers[0].model, samples, task)["student"][-1]
    return Found(cut, heads, samples, outputs)


def _cut(
    student: nn.Module, samples: Mapping[str, Any], task: Task, picture: tuple[int, int] | None
) -> tuple[int, str | None]:
    """The number of outputs, and the layer that ends the student where its blocks do not say it.

    Of inputs that are no pictures it is what enters the classifier, of pictures that shrink to a single cell
    that cell.
    """
    seen, output = calls(student, samples, task)
    found = classifier_of(seen, output)
    if found is None or found[0].entering is None:
        return output.shape[1], None
    if picture is None:
        return output.shape[1], f"{found[0].name}.input"
    name, size, _ = next(averaged(seen, found[0].entering, picture), ("", (), False))
    return output.shape[1], name if size == (1, 1) else None


def _named(
    taps: Mapping[str, Sequence[str]] | None, teachers: int, reuse_from: str | None
) -> dict[str, list[str]]:
    """The layers that the user named, by side."""
    given = {side: list(paths) for side, paths in (taps or {}).items()}
    fix = 'taps = { student = ["layer3"], teacher = ["layer3"] }, one layer of each network'
    if set(given) - {"student", "teacher"}:
        raise RequestError(f"taps {given}; needed the keys student and teacher", fix=fix)
    for side, number in (("student", 1), ("teacher", teachers)):
        if side in given and len(given[side]) != number:
            raise RequestError(
                f"simkd reads {number} {side} layer{'s' * (number > 1)}, and {len(given[side])} are named",
                fix=fix,
            )
    if reuse_from is not None and set(given.get("teacher", ())) - {f"{reuse_from}.input"}:
        raise RequestError(
            "reuse_from says which value of the teacher is matched: what enters that module",
            fix="leave the teacher's taps out",
        )
    return {side: given.get(side, []) for side in ("student", "teacher")}


@dataclass(frozen=True)
class Answer:
    """What a teacher said of the samples: the value at the layer, and its outputs."""

    value: Tensor
    output: Tensor


def answer(model: nn.Module, path: str, samples: Mapping[str, Any], task: Task) -> Answer:
    """Reads a teacher at a layer, live even where its answers are stored."""
    record = Teacher(model, task=task, paths=[path])(beside(model, samples))
    return Answer(record[path], record.output)


def check_outputs(outputs: int, heads: Sequence[Head]) -> None:
    """Refuses a teacher of other classes than the student's: its classifier is what is deployed."""
    for head in heads:
        if len(head.order) != outputs:
            raise RequestError(
                f"the teacher's classifier {head.classifier} has {len(head.order)} outputs and the student "
                f"{outputs}; simkd deploys the teacher's classifier, which fixes the classes",
                fix='a teacher of the same classes; variant = "sequential" or "joint", which train a '
                "classifier of their own on labels; or lshfm, which mimics features alone",
            )


def check_identity(model: nn.Module, head: Head, layout: Layout, said: Answer) -> Head:
    """Holds that the reused parts make the teacher's outputs of its map, in its own precision.

    Returns:
        The head, with the ReLU that lies between map and mean where there is one.

    Raises:
        RequestError: they do not.
    """
    linear, path = head.linear(model), f"teacher {head.path}"
    for relu in (head.relu, not head.relu):
        head = replace(head, relu=relu)
        with torch.no_grad():
            value = head.target(layout.to_map(said.value, path))
            for name in head.modules:
                value = model_part(model, name)(value)
            value = head.averaged(value)
            if value.shape[1] != linear.in_features:
                raise RequestError(
                    f"{path} has {value.shape[1]} channels and the classifier {head.classifier} takes "
                    f"{linear.in_features}",
                    fix=f'the map before its average, or taps = {{ teacher = ["{head.classifier}.input"] }}',
                )
            outputs = linear(value.to(linear.weight.dtype))[:, head.order.to(value.device)]
        if close(outputs, said.output):
            return head
    raise RequestError(
        f"the teacher's classifier {head.classifier} on the mean of layer {head.path!r} does not give the "
        "teacher's outputs",
        fix="leave the teacher's taps out: the right map is then looked for; or match the vector that "
        f'enters it, taps = {{ teacher = ["{head.classifier}.input"] }}; or reuse_from',
    )


def model_part(model: nn.Module, name: str) -> nn.Module:
    """A module of a network by its name in the unwrapped network."""
    return module_names(model)[name]


def ends_in_relu(final_relu: bool | None, value: Tensor, path: str) -> bool:
    """Whether the projector has its last ReLU.

    Raises:
        RequestError: it was asked for, and the teacher's features are negative.
    """
    lowest = float(value.min())
    if final_relu is None:
        return lowest >= _NEGATIVE
    if final_relu and lowest < _NEGATIVE:
        raise RequestError(
            f"teacher layer {path!r} has features down to {lowest:.3g}, which the projector's last ReLU "
            "cannot give",
            fix="final_relu = false, or the layer after the teacher's last ReLU",
        )
    return final_relu


def pooled_size(student: Sequence[int], teacher: Sequence[int], cut: str, path: str) -> tuple[int, ...]:
    """Height and width that the student's map is averaged to; empty where it is not.

    Raises:
        RequestError: one map is higher and the other wider.
    """
    size = _smaller(student, teacher, cut, path)
    larger = tuple(student if size == tuple(teacher) else teacher)
    if any(large % small for large, small in zip(larger, size, strict=True)):
        warnings.warn(
            f"simkd averages {larger[0]} x {larger[1]} to {size[0]} x {size[1]} with windows that "
            "overlap, so the mean of the map changes and even a perfect student misses the teacher's outputs "
            "somewhat; layers whose sizes divide do not",
            stacklevel=5,
        )
    return () if size == tuple(student) else size


def aligned(source: Tensor, target: Tensor, cut: str, path: str) -> tuple[Tensor, Tensor]:
    """The larger of two maps averaged to the size of the smaller; [B, C_s, h, w] and [B, C_t, h, w]."""
    size = _smaller(source.shape[2:], target.shape[2:], cut, path)
    return pool(source, size), pool(target, size)


def _smaller(student: Sequence[int], teacher: Sequence[int], cut: str, path: str) -> tuple[int, ...]:
    """Height and width of the smaller of two maps."""
    own, other = tuple(student), tuple(teacher)
    smaller = min(own[0], other[0]), min(own[1], other[1])
    if smaller not in (own, other):
        raise RequestError(
            f"student layer {cut!r} is {own[0]} x {own[1]} and teacher layer {path!r} {other[0]} x "
            f"{other[1]}: neither can be averaged to the other",
            fix="layers of like proportions",
        )
    return smaller
