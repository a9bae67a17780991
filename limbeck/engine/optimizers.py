"""Optimizers and schedules by name, their arguments checked against their signatures."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from limbeck.engine.settings import Group, Training
from limbeck.errors import RequestError, nearest
from limbeck.method import Update

_NEED_CODE = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler", "LRScheduler")
_BY_EPOCH = ("MultiStepLR", "StepLR", "ExponentialLR", "ReduceLROnPlateau", "ConstantLR")
_ALWAYS_BY_STEP = ("OneCycleLR", "CyclicLR")
_SGD_DEFAULTS = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def _classes(module: Any, base: type | tuple[type, ...]) -> dict[str, type]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and not name.startswith("_")
    }


def optimizer_names() -> list[str]:
    """Names of the optimizers in torch.optim that step without a closure."""
    return sorted(set(_classes(torch.optim, Optimizer)) - {"Optimizer", "LBFGS", "SparseAdam"})


def schedule_names() -> list[str]:
    """Names of the schedules that a recipe can give, "none" among them."""
    found = _classes(lr_scheduler, (LRScheduler, lr_scheduler.ReduceLROnPlateau))
    return ["none", *sorted(set(found) - set(_NEED_CODE))]


def _known(what: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise RequestError(f"there is no {what} {name!r}", near=nearest(name, names) or names[:5])


def check_arguments(what: str, call: Any, options: Mapping[str, Any], taken: Iterable[str]) -> None:
    """Refuses arguments that a class of torch does not take, with the nearest names.

    Raises:
        RequestError: an unknown name, or one that limbeck fills in itself.
    """
    known = [name for name in inspect.signature(call).parameters if name not in (*taken, "self")]
    for name in options:
        if name not in known:
            raise RequestError(f"{what} takes no {name!r}", near=nearest(name, known) or known[:5])


def check(settings: Training) -> None:
    """Refuses unknown optimizers, schedules and arguments of theirs, before any data is read."""
    _known("optimizer", settings.optimizer, optimizer_names())
    _known("schedule", settings.schedule, schedule_names())
    parameter = torch.nn.Parameter(torch.zeros(1, 1))
    update = Update("check", {"check": [parameter]})
    for name, group in settings.groups.items():
        check_arguments(
            f"{settings.optimizer} (group {name})",
            getattr(torch.optim, settings.optimizer),
            group.optimizer_options,
            ("params", "lr"),
        )
    optimizer = build_optimizer(update, settings.model_copy(update={"groups": {}}))
    build_schedule(optimizer, settings, epochs=max(settings.epochs, 1), steps=1)


def build_optimizer(update: Update, settings: Training) -> Optimizer:
    """The optimizer of one update, a parameter group a named group, its own settings over the recipe's."""
    settings = override(settings, update)
    _known("optimizer", settings.optimizer, optimizer_names())
    make = getattr(torch.optim, settings.optimizer)
    _check_rate(settings, make)
    options = settings.optimizer_options
    if options is None:
        options = _SGD_DEFAULTS if settings.optimizer == "SGD" else {}
    check_arguments(settings.optimizer, make, options, ("params", "lr"))
    groups = []
    for name in update.trains:
        parameters = list(update.group(name))
        if parameters:
            own = settings.groups.get(name, Group())
            check_arguments(
                f"{settings.optimizer} (group {name})", make, own.optimizer_options, ("params", "lr")
            )
            rate = update.rate * (own.learning_rate or settings.learning_rate)
            groups.append({"params": parameters, "name": name, "lr": rate, **own.optimizer_options})
    if not groups:
        raise RequestError(f"the update {update.name!r} trains no parameter")
    try:
        return cast(Optimizer, make(groups, lr=settings.learning_rate, **options))
    except (TypeError, ValueError) as error:
        raise RequestError(f"{settings.optimizer} refuses {options}: {error}") from error


def _check_rate(settings: Training, make: type[Optimizer]) -> None:
    """Refuses to train with another optimizer at the rate that is meant for SGD.

    Raises:
        RequestError: with the default of torch as the fix.
    """
    if settings.optimizer == "SGD" or "learning_rate" in settings.model_fields_set:
        return
    usual = inspect.signature(make).parameters["lr"].default
    raise RequestError(
        f"{settings.optimizer} needs a learning_rate: the default, {settings.learning_rate:g}, is for SGD",
        fix=f"learning_rate = {float(usual):g}, the default of torch",
    )


def override(settings: Training, update: Update) -> Training:
    """The settings of one update: what the method asks for over what the recipe says."""
    unknown = set(update.optimizer) - set(Training.model_fields)
    if unknown:
        name = min(unknown)
        raise RequestError(
            f"the update {update.name!r} sets {name!r}", near=nearest(name, Training.model_fields)
        )
    own = dict(update.optimizer)
    if own.get("optimizer", settings.optimizer) != settings.optimizer:
        own.setdefault("optimizer_options", None)  # options of one optimizer mean nothing to another
    return settings.model_copy(update=own)


def schedule_by_step(settings: Training) -> bool:
    """Whether the schedule counts steps (or epochs)."""
    if settings.schedule in _ALWAYS_BY_STEP:
        return True
    if settings.schedule == "ReduceLROnPlateau":
        return False
    if settings.schedule_unit == "auto":
        return settings.schedule not in _BY_EPOCH
    return settings.schedule_unit == "step"


def build_schedule(
    optimizer: Optimizer, settings: Training, *, epochs: int, steps: int, scored: bool = True
) -> LRScheduler | lr_scheduler.ReduceLROnPlateau | None:
    """The schedule of a stage; lengths that the recipe leaves out are those of the stage.

    Args:
        optimizer: whose rates it moves.
        settings: the schedule, its options and its unit.
        epochs: of the stage.
        steps: of an epoch.
        scored: a plateau is one of the validation score (higher is better), or else of the loss.
    """
    _known("schedule", settings.schedule, schedule_names())
    if settings.schedule == "none":
        return None
    make = getattr(lr_scheduler, settings.schedule)
    check_arguments(settings.schedule, make, settings.schedule_options, ("optimizer", "last_epoch"))
    options = dict(settings.schedule_options)
    names = inspect.signature(make).parameters
    length = max(epochs * steps if schedule_by_step(settings) else epochs, 1)
    for name in ("T_max", "total_steps", "total_iters"):
        if (
            name in names
            and name not in options
            and "epochs" not in options
            and (name != "total_iters" or settings.schedule == "PolynomialLR")
        ):
            options[name] = length
    if settings.schedule == "OneCycleLR":
        options.setdefault("max_lr", [group["lr"] for group in optimizer.param_groups])
    if settings.schedule == "ReduceLROnPlateau":
        options.setdefault("mode", "max" if scored else "min")
    try:
        return cast(LRScheduler, make(optimizer, **options))
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{settings.schedule} refuses {settings.schedule_options}: {error}",
            fix=f"see its arguments: {', '.join(n for n in names if n not in ('optimizer', 'last_epoch'))}",
        ) from error
