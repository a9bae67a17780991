"""The phases of SSKD by variant: what each mimics and trains, and its epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from limbeck.errors import RequestError

Variant = Literal["sskd", "last_stage", "all_at_once", "joint"]


class Phase(NamedTuple):
    """What one phase of training does; stages are counted from 0, the head is the last.

    Args:
        name: of the phase.
        update: the name of its update.
        mimics: the stages whose teacher features are targets.
        trains: the stages that are trained; with the head among them, labels are used.
        replaces: the number of phases of the variant `sskd` whose epochs it gets.
    """

    name: str
    update: str
    mimics: tuple[int, ...]
    trains: tuple[int, ...]
    replaces: int = 1


def phases_of(variant: Variant, number: int, *, freeze_previous: bool, finetune: bool) -> list[Phase]:
    """The phases of a variant in their order.

    Args:
        variant: see `SSKD`.
        number: M, the stages of the backbone.
        freeze_previous: a stage is trained in its own phase alone.
        finetune: a phase with labels for the whole network follows.
    """
    stages, head = tuple(range(number)), number
    if variant == "joint":
        phases = [Phase("joint", "student", stages, (*stages, head), number + 1)]
    elif variant == "sskd":
        phases = []
        for stage in stages:
            trains = (stage,) if freeze_previous else stages[: stage + 1]
            phases.append(Phase(f"stage{stage + 1}", f"stage{stage + 1}", (stage,), trains))
    else:
        mimics = stages if variant == "all_at_once" else stages[-1:]
        phases = [Phase("backbone", "backbone", mimics, stages, number)]
    if variant != "joint":
        phases.append(Phase("head", "head", (), (head,)))
    if finetune:
        phases.append(Phase("finetune", "finetune", (), (*stages, head), 0))
    return phases


def epochs_of(phases: Mapping[str, Phase], number: int, given: int | Sequence[int] | None) -> dict[str, int]:
    """The epochs of the updates for which they were asked; the others share what is left of the run.

    Args:
        phases: by update.
        number: M, the stages of the backbone.
        given: the epochs of every phase of `sskd`, or M + 1 of them; a merged phase gets their sum.
    """
    if given is None:
        return {}
    each = [given] * (number + 1) if isinstance(given, int) else list(given)
    if len(each) != number + 1 or min(each) < 0:
        raise RequestError(
            f"phase_epochs {given}; needed a number >= 0, or {number + 1}: {number} stages, the head"
        )
    epochs, start = {}, 0
    for update, phase in phases.items():
        if phase.replaces:
            epochs[update] = sum(each[start : start + phase.replaces])
            start += phase.replaces
    return epochs
