"""The end of a run: the test set read once, the student exported, measured, saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from limbeck._measure import timing
from limbeck._run import closing, evidence, networks
from limbeck._run.export import Exported, export, judge
from limbeck._run.folder import RunFolder
from limbeck._run.phases import Trained
from limbeck._run.saving import save
from limbeck._run.screen import Screen
from limbeck._run.session import Prepared, Session
from limbeck.data.dataset import Dataset
from limbeck.engine.evaluation import statistics
from limbeck.engine.result import Fit


@dataclass
class Final:
    """A network of the closing table.

    Args:
        network: with its chosen weights, on the processor, in eval.
        about: what run.json says of it.
        answers: what the task measured of every sample, in the order of the data.
    """

    network: nn.Module
    about: dict[str, Any] = field(default_factory=dict)
    answers: Mapping[str, Tensor] = field(default_factory=dict)


def finish(
    prepared: Prepared,
    folder: RunFolder,
    screen: Screen,
    done: Mapping[str, Trained],
    stop_if_asked: Callable[[], None],
) -> dict[str, Any]:
    """What is added to run.json once everything is trained.

    Args:
        prepared: the run.
        folder: of the run.
        screen: where it speaks.
        done: the phases.
        stop_if_asked: raises when a signal came.
    """
    began = time.monotonic()
    session = prepared.session
    data, split = final_data(session)
    finals = _tested(session, done, data)
    stop_if_asked()
    exported, failed = export(session, folder, finals["distilled"].network, data)
    for text in failed:
        screen.warn(text)
    stop_if_asked()
    how = _measured(session, finals, exported, data)
    found: dict[str, Any] = {
        "networks": {key: final.about for key, final in finals.items()},
        "score": _score(session, data, split),
        "latency": {"how": how},
        "phases": [_phase(name, trained, prepared) for name, trained in done.items()],
        "failed": failed,
    }
    for made in exported:
        found["networks"][made.key] = made.about
    found["files"] = save(prepared, folder, finals, done, {**folder.figures(), **found}, exported)
    found["evidence"] = evidence.keep(folder, session.splits, data, finals)
    measured = f"{len(finals) + len(exported)} models measured"
    files = f"{len(exported)} file{'s' if len(exported) != 1 else ''} exported and checked, "
    screen.finished("finish", (files if exported else "") + measured, time.monotonic() - began)
    return found


def final_data(session: Session) -> tuple[Dataset, str]:
    """The data of the closing table: the test set, else what chose the checkpoints, else training."""
    splits = session.splits
    if splits.test is not None:
        return splits.test, "test"
    return (splits.validation, "validation") if splits.validation is not None else (splits.train, "train")


def _score(session: Session, data: Dataset, split: str) -> dict[str, Any]:
    task = session.splits.task
    return {"split": split, "kind": task.kind, "name": task.score_name, "samples": len(data)}


def _tested(session: Session, done: Mapping[str, Trained], data: Dataset) -> dict[str, Final]:
    """Every network with its chosen weights, scored; of those trained here also the last ones."""
    finals: dict[str, Final] = {}
    for name, trained in done.items():
        key = _key(name, len(session.recipe.all_teachers()))
        finals[key] = _of_a_phase(session, trained, data)
        if key == "distilled":
            finals |= _trained_along(session, trained, data, finals)
    if "distilled" in finals and finals["distilled"].about.get("epochs"):
        about = finals["distilled"].about
        about["note"] = f"epoch {about['chosen_epoch']} of {about['epochs']}"
    return _in_order(finals)


def _of_a_phase(session: Session, trained: Trained, data: Dataset) -> Final:
    """The network of a phase; it is scored once where the last epoch is the chosen one."""
    about: dict[str, Any] = {"validation": _first(trained.validation)}
    fit = trained.fit
    if fit is None:
        return _final(session, trained.method.deployable(), data, about)
    last = None if _chose_the_last(fit) else _final(session, fit.load("last").deployable(), data).about
    found = _final(session, fit.load("chosen").deployable(), data)
    about |= {"last": last or found.about, "chosen_epoch": fit.chosen_epoch, "epochs": len(fit.history)}
    return Final(found.network, {**about, **found.about}, found.answers)


def _chose_the_last(fit: Fit) -> bool:
    """Whether last and chosen weights are the same."""
    last, chosen = fit.weights["last"], fit.weights["chosen"]
    same = all(value.equal(chosen[name].to(value.device)) for name, value in last.items())
    return same and fit.scores == fit.chosen_scores


def _key(name: str, teachers: int) -> str:
    if name == "distil":
        return "distilled"
    return "teacher" if name.startswith("teacher") and teachers == 1 else name


def _in_order(finals: Mapping[str, Final]) -> dict[str, Final]:
    """Teachers first, as in the closing table."""
    order = [key for key, _ in closing.ROWS]
    return dict(sorted(finals.items(), key=lambda item: order.index(item[0].split()[0])))


def _trained_along(
    session: Session, trained: Trained, data: Dataset, finals: Mapping[str, Final]
) -> dict[str, Final]:
    """A teacher that was trained together with the students."""
    network = trained.method.networks().get("teacher")
    if network is None or any(key.startswith("teacher") for key in finals):
        return {}
    return {"teacher": _final(session, network, data, {"note": "trained along"})}


def _final(
    session: Session, network: nn.Module, data: Dataset, about: Mapping[str, Any] | None = None
) -> Final:
    """A network with what the data say of it; it is on the processor afterwards."""
    task = session.splits.task
    answers = statistics(network.to(session.machine.device), data, task)
    found = task.score(answers)
    network.to("cpu").eval()
    scores = {
        "score": found[task.score_name],
        "scores": found,
        "parameters": timing.parameters(network),
        "bytes": networks.stored_bytes(network),
    }
    return Final(network, {**(about or {}), **scores}, answers)


def _first(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return dict(next(iter(scores.values()), {}))


def _measured(session: Session, finals: Mapping[str, Final], exported: list[Exported], data: Dataset) -> str:
    """Latency of every network in turn on one sample; says how it was measured."""
    task = session.splits.task
    batch = task.batch(data.batch([0]))
    calls: dict[str, Callable[[], object]] = {
        key: _caller(task, final.network, batch) for key, final in finals.items()
    }
    calls |= {made.key: _caller(task, made.network, batch) for made in exported}
    runtimes = {made.key: made.runtime for made in exported}
    found = timing.in_turn(calls, runtimes=runtimes)
    abouts = {key: final.about for key, final in finals.items()} | {made.key: made.about for made in exported}
    for key, latency in found.items():
        abouts[key]["latency"] = latency.stored()
        abouts[key]["latency_seconds"] = latency.median / 1000
    judge(abouts, task.kind)
    one = next(iter(found.values()))
    return f"median of {one.runs} after {one.warmups} warm-ups, batch 1, 1 thread"


def _caller(task: Any, network: nn.Module, batch: Any) -> Callable[[], object]:
    return lambda: task.call(network, batch)


def _phase(name: str, trained: Trained, prepared: Prepared) -> dict[str, Any]:
    """A phase for run.json: what it took and what the plan said."""
    planned = prepared.costs[name].seconds if name in prepared.costs else 0.0
    if trained.fit is None:
        return {"name": name, "seconds": 0.0, "planned_seconds": 0.0}
    return {
        "name": name,
        "seconds": round(trained.fit.seconds, 1),
        "planned_seconds": round(planned, 1),
        "epochs": len(trained.fit.history),
        "chosen_epoch": trained.fit.chosen_epoch,
        "last": trained.fit.scores,
        "chosen": trained.fit.chosen_scores,
        "cost": trained.fit.cost.stored(),
    }
