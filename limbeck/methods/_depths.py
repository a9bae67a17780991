"""Layers of both networks from the last vector to the first stage, and what enters a stage's last ReLU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck._taps.paths import resolve
from limbeck._taps.proposals import few
from limbeck._taps.survey import Survey, survey
from limbeck.errors import RequestError
from limbeck.methods._penultimate import last_of
from limbeck.taps import propose
from limbeck.task import Task

_SAMPLES = 16  # that show classifiers, values before a ReLU and outputs

FIX = (
    'name the layers, first stage to last vector: taps = { student = ["layer1", "layer2", "fc.input"], '
    "teacher = [...] }"
)


@dataclass(frozen=True)
class Found:
    """What is read, and how many values both networks say of a sample.

    Args:
        taps: paths by network, shallow to deep.
        outputs: K by network; 0 where an output is no [B, K].
    """

    taps: dict[str, list[str]]
    outputs: dict[str, int]


def find(
    networks: Mapping[str, nn.Module],
    task: Task,
    taps: Mapping[str, Sequence[str]] | None,
    example: Any,
    *,
    single: bool,
    before: Mapping[str, bool | None],
) -> Found:
    """The layers to read, by passes that leave the networks as they were.

    Args:
        networks: "student" and "teacher".
        task: how a batch enters them.
        taps: as the user gave them; None: the stages of both and, unless `single`, what enters the
            classifiers.
        example: one batch, in any form.
        single: one layer of each is read, the last stage; it is taken as it is.
        before: by network, read what enters the ReLU that makes a stage's value: yes, no, or None for where
            that can be read. Not of the deepest level, which is the pooled vector.

    Raises:
        RequestError: layers are missing, misnamed or not equally many; a network ends in no Linear; or a
            value before a ReLU cannot be read.
    """
    if example is None:
        raise RequestError(
            "unikd sizes its heads by one batch, and none was given", fix="example=next(iter(loader))"
        )
    samples = few(task.batch(example), _SAMPLES)
    chosen = _chosen(networks, task, taps, samples, single)
    outputs = {}
    for side, network in networks.items():
        seen = survey(network, samples, task)
        outputs[side] = _width(seen.output)
        if before[side] is not False and not single:
            chosen[side] = [
                *(_before(seen, network, path, side, before[side]) for path in chosen[side][:-1]),
                chosen[side][-1],
            ]
    return Found(chosen, outputs)


def _chosen(
    networks: Mapping[str, nn.Module],
    task: Task,
    taps: Mapping[str, Sequence[str]] | None,
    samples: Mapping[str, Any],
    single: bool,
) -> dict[str, list[str]]:
    if taps is None:
        found = propose(networks["student"], networks["teacher"], samples, task)
        if single:
            return {side: found[side][-1:] for side in networks}
        return {side: [*found[side], _last(networks[side], samples, task, side)] for side in networks}
    if set(taps) != set(networks):
        raise RequestError(f"taps of {sorted(taps)}; needed student and teacher", fix=FIX)
    chosen = {side: list(taps[side]) for side in networks}
    numbers = [len(chosen[side]) for side in ("student", "teacher")]
    if single and numbers != [1, 1]:
        raise RequestError(
            f'{numbers[0]} student and {numbers[1]} teacher taps; teacher_feature = "last_stage" reads one '
            "layer of each network",
            fix='taps = { student = ["layer3"], teacher = ["layer3"] }',
        )
    if numbers[0] != numbers[1]:
        raise RequestError(
            f"{numbers[0]} student taps and {numbers[1]} teacher taps; a level has one of each", fix=FIX
        )
    if not single and numbers[0] < 2:
        raise RequestError(
            f"{numbers[0]} level; a fusion needs at least 2, the last of them the pooled vector",
            fix=FIX + ', or teacher_feature = "last_stage"',
        )
    return chosen


def _last(network: nn.Module, samples: Mapping[str, Any], task: Task, side: str) -> str:
    return last_of(network, None, samples, task, side, headless=False).path


def _before(seen: Survey, network: nn.Module, path: str, side: str, needed: bool | None) -> str:
    """The path of what enters the ReLU whose value is a layer's; the layer itself if that cannot be read."""
    place = resolve(network, path)
    calls = [] if place.entering or place.parts else seen.calls(place.name)
    number = (place.call or 1) - 1
    value = calls[number].value if number < len(calls) else None
    for event in seen.events:
        # A ReLU that works in place leaves no value before it.
        if value is not None and event.value is value and isinstance(event.module, nn.ReLU | nn.ReLU6):
            if event.module.inplace:
                continue
            many = len(seen.calls(event.name)) > 1
            return f"{event.name}.input" + (f"#{event.call}" if many else "")
    if needed:
        raise RequestError(
            f"layer {path!r} of the {side} is not made by a ReLU module whose input can be read, which "
            f"{side}_preact asks for",
            fix="a ReLU module that does not work in place, the path of the value itself in taps, or "
            f"{side}_preact = false",
        )
    return path


def _width(output: Any) -> int:
    return output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 else 0
