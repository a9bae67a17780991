"""A few steps of the method on real samples: loss terms, their pull on the student, what breaks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from limbeck._check.desk import Desk
from limbeck._run import cost
from limbeck._run.session import Session
from limbeck._show import figures
from limbeck.engine.optimizers import build_optimizer, build_schedule, schedule_by_step
from limbeck.engine.settings import Training
from limbeck.method import Method, Stage, Update
from limbeck.record import Losses
from limbeck.teacher import Teacher

_STEPS = 4
#: Weighted gradients that differ more than so many times are worth a word.
_APART = 1000.0
_NEAR = 10.0  # times that the fix leaves


@dataclass(frozen=True)
class Terms:
    """What the loss is made of, before training.

    Args:
        values: unweighted, by term.
        pulls: the norm of each weighted term's gradient at the parameters of the networks that train.
        broken: the first term that was not finite in the dry steps, and the step from 1; None: all were.
        step: seconds of the quickest step, with a live teacher; `teacher`: of the teacher's forward in it.
    """

    values: Mapping[str, float]
    pulls: Mapping[str, float]
    broken: tuple[str, int] | None
    step: float
    teacher: float


def dry_terms(session: Session, teachers: Sequence[nn.Module]) -> Terms:
    """The terms of the first stage that trains the student, and a few steps of it on networks of its own."""
    with cost.undisturbed():
        method = session.method(teachers).to(session.machine.device)
        stage, epochs = _stage(method, session.recipe.train)
        method.enter(stage)
        data = cost.small(method, stage, session.train, session.recipe.train)
        loop = {"progress": 0.5, "epoch": epochs, "epochs": epochs, "scores": {}, "history": []}
        for name, value in loop.items():
            setattr(method, name, value)
        optimizers = {each.name: build_optimizer(each, session.recipe.train) for each in stage.updates}
        method.optimizers = optimizers
        rows = session.machine.micro_batch or session.recipe.train.batch_size
        batch = cost.batch_of(method, data, min(rows, len(data)), session.machine, stage)
        values, pulls = _pulls(method, stage, batch)
        broken, step = _steps(method, stage, batch, optimizers, session.recipe.train, epochs)
        return Terms(values, pulls, broken, step, _teacher_seconds(session, teachers, batch))


def _stage(method: Method, settings: Training) -> tuple[Stage, int]:
    """The first stage that trains a parameter of a network that is kept, and the epochs of the run."""
    stages = method.stages()
    known = list(stages) if isinstance(stages, Sequence) else [next(iter(stages))]
    own = {id(p) for network in method.learners() for p in network.parameters()}
    trains = [s for s in known if any(id(p) in own for u in s.updates for p in u.parameters())]
    return (trains or known)[0], max(settings.epochs, 1)


def _pulls(method: Method, stage: Stage, batch: Any) -> tuple[dict[str, float], dict[str, float]]:
    values: dict[str, float] = {}
    pulls: dict[str, float] = {}
    for update in stage.updates:
        losses = method(batch, update=update.name)
        for name, term in losses.terms.items():
            key = name if name not in values else f"{update.name}.{name}"
            values[key] = float(term.detach())
            pulls[key] = _norm(losses.weights[name] * term, _kept(method, update))
    return values, pulls


def _kept(method: Method, update: Update) -> list[nn.Parameter]:
    """Parameters that an update trains, of the networks that are kept; all that it trains where none is."""
    trained = [p for p in update.parameters() if p.requires_grad]
    own = {id(p) for network in method.learners() for p in network.parameters()}
    return [p for p in trained if id(p) in own] or trained


def _norm(value: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    if not value.requires_grad:
        return 0.0
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return math.sqrt(
        sum(float(gradient.float().square().sum()) for gradient in found if gradient is not None)
    )


def _steps(
    method: Method,
    stage: Stage,
    batch: Any,
    optimizers: Mapping[str, Optimizer],
    settings: Training,
    epochs: int,
) -> tuple[tuple[str, int] | None, float]:
    """Which term is not finite first, if one is; and the seconds of the quickest step."""
    schedules = [
        build_schedule(each, settings, epochs=epochs, steps=_STEPS)
        for each in optimizers.values()
        if schedule_by_step(settings)
    ]
    taken: list[float] = []
    for step in range(1, _STEPS + 1):
        began = time.perf_counter()
        for update in stage.updates:
            losses = method(batch, update=update.name)
            broken = _broken(losses)
            if broken is not None:
                return (broken, step), min(taken, default=0.0)
            losses.total.backward()
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(list(update.parameters()), settings.clip_norm)
            optimizers[update.name].step()
            optimizers[update.name].zero_grad()
        for schedule in schedules:
            if isinstance(schedule, torch.optim.lr_scheduler.LRScheduler) and step < _STEPS:
                schedule.step()
        taken.append(time.perf_counter() - began)
    return None, min(taken)


def _broken(losses: Losses) -> str | None:
    for name, value in losses.detached().items():
        if not bool(torch.isfinite(value).all()):
            return name
    return None


def _teacher_seconds(session: Session, teachers: Sequence[nn.Module], batch: Any) -> float:
    """Of the teachers' answers to a batch; the quickest of some."""
    taken = 0.0
    for network in teachers:
        teacher = Teacher(network.to(session.machine.device), task=session.splits.task)
        times = []
        for _ in range(_STEPS):
            began = time.perf_counter()
            teacher(batch)
            times.append(time.perf_counter() - began)
        taken += min(times)
    return taken


def check_terms(desk: Desk, terms: Terms, session: Session, *, trained: bool) -> None:
    """Terms that are far apart, and steps that leave the finite numbers.

    A student that is `trained` has little to gain of some terms: how they pull says nothing of their weights.
    """
    desk.looks("K116", *(() if trained else ("K207",)))
    if terms.broken is not None:
        name, step = terms.broken
        what = "the loss" if name == "total" else f"the term {name}"
        rate = session.recipe.train.learning_rate
        desk.finds(
            "K116",
            f"{what} is not finite in dry step {step}",
            *("train", "learning_rate"),
            fix=desk.in_table(f"learning_rate = {rate / 10:g}", "train", "learning_rate")
            + ", or clip_norm = 1.0",
        )
    felt = {name: pull for name, pull in terms.pulls.items() if pull > 0 and math.isfinite(pull)}
    if len(felt) < 2 or trained:
        return
    large, small = max(felt, key=lambda name: felt[name]), min(felt, key=lambda name: felt[name])
    ratio = felt[large] / felt[small]
    if ratio > _APART:
        path, fix = _weight(desk, session, small, large, ratio)
        desk.finds(
            "K207",
            f"two loss terms differ {ratio:,.0f} times in size",
            *path,
            fix=fix,
            detail=f"Weighted gradients at the student: {large} {figures.short(felt[large])}, "
            f"{small} {figures.short(felt[small])}.",
        )


def _weight(
    desk: Desk, session: Session, small: str, large: str, ratio: float
) -> tuple[tuple[str, ...], str]:
    """The key to blame, and what to write: a weight of the recipe by its name, else what the method has."""
    own = session.chosen.hyperparameters
    given = desk.recipe.method.hyperparameters
    for term, factor in ((small, 1 / ratio), (large, ratio)):
        name = f"{term.rpartition('.')[2]}_weight"
        if name in given and isinstance(own.get(name), int | float) and own[name]:
            value = own[name] * _NEAR ** (1 if factor > 1 else -1) / factor
            line = desk.in_table(f"{name} = {value:.2g}", "method", name)
            return ("method", name), f"{line}: then they differ {_NEAR:g} times"
    paper = session.chosen.method.card.hyperparameters
    for name in given:
        if isinstance(own.get(name), float) and ("weight" in name or name in ("alpha", "beta", "gamma")):
            return ("method", name), f"{name}: {paper.get(name, 'another value')}"
    names = [name for name in own if "weight" in name or name in ("alpha", "beta", "gamma")]
    return (
        "method",
        "name",
    ), f"set {' or '.join(names[:3])} in [method]" if names else "see the method's page"
