"""Faults of the networks' answers: chance, another order, another normalisation, nothing to learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._check.desk import Desk, assigned
from limbeck._recipe.toml import Path
from limbeck._run import chance, networks
from limbeck._run.chance import Look
from limbeck._run.session import Session
from limbeck._show import figures
from limbeck.data.dataset import Dataset
from limbeck.engine.evaluation import evaluate
from limbeck.losses import standardize
from limbeck.method import Method
from limbeck.models.building import Built
from limbeck.models.preprocessing import NAMED, Preprocessed, Preprocessing, statistics
from limbeck.teacher import Teacher

_CLEAR = 0.05  # by which another order or other statistics must be better, beside what chance gives
_FLAT, _SHARP = 0.995, 0.005  # of log C: entropies of soft targets that carry nothing
_HALF = {"mean": [0.5], "std": [0.5]}


@dataclass(frozen=True)
class Given:
    """A network of the recipe: as it was built, with its outputs in the order of the data's classes.

    Args:
        built: as it was built; `network`: the same, matched by name.
        number: among those of its role.
        known: its weights are given, not yet to be trained.
    """

    built: Built
    network: nn.Module
    number: int
    known: bool


def sample_of(session: Session) -> tuple[str, Dataset]:
    """The part that scores are taken on, and its samples: some of validation, else of training."""
    parts = session.splits.parts()
    name = "validation" if "validation" in parts else "train"
    return name, parts[name].subset(chance.some(parts[name]))


def score_of(network: nn.Module, session: Session, data: Dataset) -> float:
    """The score of a network that the task chooses by."""
    task = session.splits.task
    return evaluate(network, data, task, device=session.machine.device)[task.score_name]


def check_answers(desk: Desk, session: Session, teacher: Given, data: Dataset) -> None:
    """Chance, order and normalisation of a teacher with given weights; one cause is named, the likeliest."""
    seen = chance.look(teacher.network, data, session.splits.task)
    if seen is None:
        return
    desk.looks("K104", "K105", "K106")
    path = desk.table("teacher", teacher.number)
    lost = seen.accuracy <= seen.bound
    said = "the teacher is no better than chance" if lost else ""
    other = _other_statistics(session, teacher, data, seen)
    if other is not None:
        said = said or "the teacher was made for other statistics of its pixels"
        _say_statistics(desk, teacher, path, said, seen, *other)
    elif _clearly(seen.renamed(), seen):
        said = said or "the teacher has its classes in another order than the data"
        _say_order(desk, session, path, said, seen)
    elif lost and not desk.recipe.all_teachers()[teacher.number].accept_chance:
        desk.finds(
            "K104",
            said,
            *path,
            "weights",
            fix="other weights; or accept_chance = true in its table goes on with it",
            detail=f"{_right(seen)} Neither another order of its classes nor other common statistics of the "
            "pixels explain it.",
        )


def _clearly(better: float, seen: Look) -> bool:
    """Whether an accuracy is above what was seen by more than chance explains."""
    spread = sum(share * (1 - share) for share in (better, seen.accuracy)) / seen.samples
    return better - seen.accuracy > _CLEAR + 2 * math.sqrt(spread) and better > seen.bound


def _other_statistics(
    session: Session, teacher: Given, data: Dataset, seen: Look
) -> tuple[Any, Preprocessing, float] | None:
    """Common statistics under which a teacher is clearly better: how to write them, and its accuracy."""
    own = teacher.built.network.preprocessing
    if own.kind != "image":
        return None
    best: tuple[Any, Preprocessing, float] | None = None
    choices: list[str | Mapping[str, Any]] = [*NAMED, "data", _HALF]
    for written in choices:
        mean, std = statistics(written, own.channels, session.statistics)
        wants = replace(own, mean=mean, std=std)
        if _same(wants, own):
            continue
        network = Preprocessed(teacher.built.network.body, wants)
        matched = networks.by_name(replace(teacher.built, network=network), session.splits.classes, "")
        found = chance.look(matched, data, session.splits.task)
        if (
            found is not None
            and _clearly(found.accuracy, seen)
            and (best is None or found.accuracy > best[2])
        ):
            best = written, wants, found.accuracy
    return best


def _same(one: Preprocessing, other: Preprocessing) -> bool:
    values = [(*each.mean, *each.std) for each in (one, other)]
    return len(values[0]) == len(values[1]) and all(
        math.isclose(a, b, abs_tol=1e-3) for a, b in zip(*values, strict=True)
    )


def _say_statistics(
    desk: Desk,
    teacher: Given,
    path: Path,
    said: str,
    seen: Look,
    written: Any,
    wants: Preprocessing,
    better: float,
) -> None:
    own = teacher.built.network.preprocessing
    line = desk.in_table(assigned("normalize", written), *path, "normalize")
    desk.finds(
        "K106",
        said,
        *path,
        "normalize",
        fix=line,
        detail=f"{_right(seen)} With {_numbers(wants)}, not {_numbers(own)}, it reaches {_percent(better)}.",
    )


def _numbers(wants: Preprocessing) -> str:
    if not any(wants.mean) and all(value == 1 for value in wants.std):
        return "pixels from 0 to 1"
    mean, std = (" ".join(f"{value:.3g}" for value in values) for values in (wants.mean, wants.std))
    return f"mean {mean} and std {std}"


def _say_order(desk: Desk, session: Session, path: Path, said: str, seen: Look) -> None:
    classes = session.splits.classes or []
    moved = {a: b for a, b in sorted(seen.meanings().items()) if a != b and max(a, b) < len(classes)}
    pairs = ", ".join(f"{classes[a]!r} for {classes[b]!r}" for a, b in list(moved.items())[:3])
    detail = f"{_right(seen)} With its classes renamed it reaches {_percent(seen.renamed())}: it says {pairs}"
    detail += ", ..." if len(moved) > 3 else "."
    by_value = sorted(classes, key=int) if all(name.isdigit() for name in classes) else []
    if by_value and all(by_value[a] == classes[b] for a, b in moved.items()):
        detail += " It counts the class folders by value, the data sort them as text."
    desk.finds(
        "K105",
        said,
        *path,
        "weights",
        fix="a student/ folder as the teacher, which has the names of its classes; or the data's order",
        detail=detail,
    )


def _right(seen: Look) -> str:
    """How often a teacher is right, as a sentence."""
    return f"It is right for {chance.in_words(seen)}."


def _percent(value: float) -> str:
    return figures.score("classes", value)


def check_student(desk: Desk, teachers: Sequence[Given], student: Given) -> None:
    """A student that is its teacher, or larger than all of them."""
    known = [each for each in teachers if each.known]
    if known and student.known:
        desk.looks("K107")
    for teacher in known:
        if student.known and _equal(teacher.built.network.body, student.built.network.body):
            desk.finds(
                "K107",
                "teacher and student have the same structure and the same weights",
                *desk.table("student", student.number),
                "weights",
                fix="leave weights out here, or give the teacher those of another network",
            )
    if not teachers:
        return
    desk.looks("K206")
    sizes = [_size(each.network) for each in (*teachers, student)]
    if sizes[-1] > max(sizes[:-1]):
        desk.finds(
            "K206",
            f"the student has {sizes[-1]:,} parameters, its teacher {max(sizes[:-1]):,}",
            *desk.table("student", student.number),
            "model",
            fix="a smaller student; if this one is meant, go on",
        )


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def check_rank(desk: Desk, session: Session, scores: Mapping[str, float], samples: int) -> None:
    """A teacher that scores below the student which it shall teach; `scores` by role, of given weights."""
    if not {"teacher", "student"} <= set(scores):
        return
    desk.looks("K201")
    kind, teacher, student = session.splits.task.kind, scores["teacher"], scores["student"]
    spread = (
        sum(value * (1 - value) for value in scores.values()) / samples if figures.is_share(kind) else 0.0
    )
    if student - teacher > 2 * math.sqrt(max(spread, 0.0)):
        desk.finds(
            "K201",
            f"the teacher is worse than the student: {figures.score(kind, teacher)} against "
            f"{figures.score(kind, student)}",
            *desk.table("teacher"),
            "weights",
            fix="a better teacher, or leave the student's weights out",
        )


def check_temperature(desk: Desk, session: Session, method: Method, teachers: Sequence[Given]) -> None:
    """Soft targets that are all but certain, or all but equal."""
    temperature = _temperature(session, method)
    known = [each for each in teachers if each.known]
    if temperature is None or session.splits.task.kind != "classes" or not known:
        return
    desk.looks("K203")
    for teacher in known:
        share = _entropy(session, teacher.network, temperature)
        if _SHARP <= share <= _FLAT:
            continue
        how = "all classes are equally likely" if share > _FLAT else "one class has all of the probability"
        desk.finds(
            "K203",
            f"at temperature {temperature:g} the soft targets carry nothing: {how}",
            *("method", "temperature"),
            fix=desk.in_table("temperature = 4.0", "method", "temperature"),
            detail=f"Their entropy is {share:.1%} of that of equal classes.".replace("%", " %"),
        )


def _temperature(session: Session, method: Method) -> float | None:
    given = session.chosen.hyperparameters.get("temperature")
    own = method.top_k_temperatures() or (None,)
    found = given if given is not None else own[0]
    return float(found) if isinstance(found, int | float) else None


def _entropy(session: Session, network: nn.Module, temperature: float) -> float:
    """Mean entropy of a teacher's softened answers to training samples, as a share of log C."""
    data = session.splits.train
    task = session.splits.task
    parts: list[Tensor] = []
    for places in torch.split(chance.some(data), 128):
        parts.append(Teacher(network, task=task)(task.batch(data.batch(places))).output.float())
    logits = torch.cat(parts)
    if session.chosen.hyperparameters.get("standardize"):
        logits = standardize(logits)
    shares = (logits / temperature).log_softmax(1)
    entropy = -(shares.exp() * shares).sum(1).mean()
    return abs(float(entropy)) / math.log(logits.shape[1])
