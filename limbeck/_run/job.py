"""Starting a run and going on with one: plan, folder, phases, end."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import limbeck
from limbeck._run import machine
from limbeck._run.caching import Caching, figures_of, plan_line
from limbeck._run.finish import finish
from limbeck._run.folder import RUNS, RunFolder, choose, free
from limbeck._run.notebook import NotebookScreen, notebook
from limbeck._run.phases import Runner
from limbeck._run.plan import Part, Plan, free_disk
from limbeck._run.reporting import finished_page
from limbeck._run.result import Run
from limbeck._run.screen import Screen, silent
from limbeck._run.session import Prepared, Session, open_session, prepare, resolved
from limbeck._run.team import Team
from limbeck._seal import checksum
from limbeck._show import figures
from limbeck.engine.cost import peak_memory
from limbeck.engine.interruption import Interruption
from limbeck.errors import Interrupted, RequestError, RunError
from limbeck.recipe import Recipe

_EXPORT_SECONDS = 8.0  # torch.onnx.export and its check, of a small network
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_WEIGHTS_KEPT = 3  # last, its momentum, chosen: in the checkpoints of a phase


def default_screen() -> Screen:
    """Stderr, or the notebook that runs this."""
    display = notebook()
    return Screen() if display is None else NotebookScreen(display)


def start(
    recipe: Recipe, source: str, output: str | Path | None, *, dry_run: bool, screen: Screen | None
) -> Run:
    """A new run from its recipe; see `limbeck.distill`."""
    screen = screen or default_screen()
    team = Team()
    chosen, kept = team.from_main(lambda: choose(recipe.name, output, source))
    folder = RunFolder(chosen.path, writes=team.is_main)
    prepared = _agreed(prepare(open_session(recipe)), team)
    plan = plan_of(prepared, folder, kept)
    if dry_run:
        return Run(folder.path, plan=plan)
    with folder.locked():
        if team.is_main:
            free(folder, source)  # still: another process may have begun there since
        _say(plan, screen, team)
        folder.begin(recipe, resolved(prepared), _first_figures(prepared, folder, plan, source))
        folder.log(f"limbeck distill {source}\n{plan.text()}")
        folder.echo = screen.say if screen.verbose else None
        folder.log("\n".join(prepared.notes))
        return _execute(prepared, folder, plan, screen, team, resume=False)


def go_on(folder: RunFolder, *, dry_run: bool, screen: Screen | None) -> Run:
    """The rest of a run that stopped."""
    team = Team()
    folder = RunFolder(folder.path, writes=team.is_main)
    with nullcontext() if dry_run else folder.locked():
        return _rest(folder, team, screen or default_screen(), dry_run=dry_run)


def _rest(folder: RunFolder, team: Team, screen: Screen, *, dry_run: bool) -> Run:
    """What is left of a run in its locked folder."""
    recipe, run = folder.recipe(), folder.figures()
    if folder.finished:  # by another process, since it was looked at
        return Run.open(folder.path)
    session = open_session(recipe)
    _same_inputs(session, run, folder)
    prepared = _agreed(prepare(session), team)
    plan = plan_of(prepared, folder, "goes on where it stopped")
    if dry_run:
        return Run(folder.path, plan=plan)
    _say(plan, screen, team)
    folder.mend_metrics()
    folder.log(f"goes on\n{plan.text()}")
    folder.echo = screen.say if screen.verbose else None
    return _execute(prepared, folder, plan, screen, team, resume=True)


def _say(plan: Plan, screen: Screen, team: Team) -> None:
    if team.is_main:
        screen.say(plan.text())


def _agreed(prepared: Prepared, team: Team) -> Prepared:
    """What the main process found out by its dry steps holds for all."""
    where, costs, caching, fast = team.from_main(
        lambda: (prepared.session.machine, prepared.costs, prepared.caching, prepared.fast)
    )
    session = replace(prepared.session, machine=where)
    return replace(prepared, session=session, costs=costs, caching=caching, fast=fast)


def unfinished(recipe: Recipe, output: str | Path | None) -> RunFolder:
    """The run of a recipe that stopped, by the recipe instead of its folder."""
    folder = RunFolder(Path(output) if output is not None else RUNS / recipe.name)
    if not folder.is_run:
        raise RequestError(f"there is no run {folder} to go on with", fix="leave --resume out")
    if folder.recipe().fingerprint() != recipe.fingerprint() and not folder.finished:
        raise RequestError(
            f"{folder} was begun with another recipe",
            fix=f"limbeck distill {folder} --resume goes on with its own",
        )
    return folder


def _execute(
    prepared: Prepared, folder: RunFolder, plan: Plan, screen: Screen, team: Team, *, resume: bool
) -> Run:
    """The phases and the end of a run, in its locked folder."""
    interruption = Interruption()
    planned = {part.name: part.seconds for part in plan.parts if part.seconds is not None}
    shown = screen if team.is_main else silent()
    runner = Runner(prepared, folder, shown, planned, interruption, resume, team)
    began = time.monotonic()
    with folder.logged(), interruption.listening(), _told(folder):
        done = runner.phases()
        team.part()
        if not team.is_main:
            return Run(folder.path, plan=plan)
        finishing = time.monotonic()
        found = finish(prepared, folder, screen, done, runner.stop_if_asked)
        found["cache"] = figures_of(prepared.caching, runner.filled)
        seconds = time.monotonic() - began
        if resume:  # what earlier sessions took is in their phases
            trained = sum(phase.fit.seconds for phase in done.values() if phase.fit is not None)
            seconds = trained + time.monotonic() - finishing
        ended = {"state": "finished", "finished": _now(), "seconds": round(seconds, 1)}
        run = {**folder.figures(), **found, **ended, "files": [*found["files"], "report.html"]}
        run["findings"] = finished_page(folder, run)
        folder.write_figures(run)
        folder.log(f"done in {figures.clock(seconds)}")
    return Run.open(folder.path)


@contextmanager
def _told(folder: RunFolder) -> Iterator[None]:
    """Says how to go on after what may end a run."""
    resume = f"limbeck distill {folder} --resume"
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.exit_code - 128, error.message, fix=resume) from error
    except torch.OutOfMemoryError as error:
        fix = f"{resume} with less else on it, or a new run with machine.micro_batch"
        raise RunError("the device ran out of memory", fix=fix) from error
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise RunError(
            f"a file could not be written: {error.strerror}", fix=f"make room, then {resume}"
        ) from error


def plan_of(prepared: Prepared, folder: RunFolder, kept: str) -> Plan:
    """The plan of a prepared run."""
    session = prepared.session
    where = session.machine
    head = (
        f"limbeck {limbeck.__version__}   torch {torch.__version__.partition('+')[0]}   "
        f"{machine.describe(where)}   seed {session.recipe.seed}"
    )
    on_gpu = (where.device or "cpu") != "cpu"
    threads = f"{where.threads} thread{'s' if where.threads != 1 else ''}"
    same = "nearly the same on this device again" if on_gpu else f"same bits on this machine with {threads}"
    stored = sum(prepared.bytes["teacher"][number] for number in prepared.trained)
    stored += prepared.bytes["student"][0] + sum(prepared.bytes["student"])
    existing = next(
        parent for parent in [folder.path.absolute(), *folder.path.absolute().parents] if parent.exists()
    )
    limits = {"memory": machine.memory(), "disk": free_disk(str(existing))}
    return Plan(
        head=head,
        folder=str(folder),
        kept=kept,
        parts=_parts(prepared),
        memory=peak_memory(where.device),
        disk=_WEIGHTS_KEPT * stored + 2 * sum(prepared.bytes["student"]) + _to_write(prepared.caching),
        same=same,
        chosen=_chosen(prepared),
        notes=prepared.notes,
        limits={name: limit for name, limit in limits.items() if limit is not None},
    )


def _to_write(caching: Caching) -> int:
    """Bytes of the answers that are not stored yet."""
    return caching.bytes * caching.missing // max(caching.answers, 1)


def _parts(prepared: Prepared) -> list[Part]:
    session = prepared.session
    recipe, costs = session.recipe, prepared.costs
    parts = [Part("data", _data_line(session))]
    parts += _teacher_parts(prepared)
    if prepared.caching.on:
        parts.append(Part("cache", plan_line(prepared.caching), prepared.caching.seconds))
    count = prepared.parameters["student"][0]
    model = recipe.all_students()[0].model
    if "alone" in costs:
        about = f"{model}, {count:,} parameters, without teacher, {_epochs(costs['alone'].epochs)}"
        parts.append(Part("alone", about, costs["alone"].seconds))
    about = _distil_line(prepared)
    parts.append(Part("distil", about, costs["distil"].seconds))
    if session.taps is not None:
        how = "" if recipe.method.taps else " (proposed)"
        pair = " > ".join(" ".join(session.taps[side]) for side in ("teacher", "student"))
        parts.append(Part("layers", f"{pair}{how}"))
    parts.append(Part("finish", "test once, export, measure, report", _finish_seconds(prepared)))
    return parts


def _data_line(session: Session) -> str:
    splits = session.splits
    labels = f" ({session.labelled:,} labels)" if session.labelled < len(session.train) else ""
    sizes = [
        f"{len(data):,} {name}{labels if name == 'train' else ''}" for name, data in splits.parts().items()
    ]
    classes = f", {len(splits.classes)} classes" if splits.classes else ""
    return f"{splits.name}: {', '.join(sizes)}{classes}"


def _teacher_parts(prepared: Prepared) -> list[Part]:
    session = prepared.session
    parts = []
    for number, count in enumerate(prepared.parameters["teacher"]):
        spec = session.recipe.all_teachers()[number]
        name = "teacher" if len(prepared.parameters["teacher"]) == 1 else f"teacher {number}"
        about = f"{spec.model}, {count:,} parameters"
        if number in prepared.trained:
            cost = prepared.costs[f"teacher {number}"]
            labels = ", all labels" if session.labelled < len(session.train) else ""
            parts.append(Part(name, f"{about}{labels}, {_epochs(cost.epochs)}", cost.seconds))
        else:
            how = f"weights from {spec.weights}" if spec.weights != "train" else "trained along"
            parts.append(Part(name, f"{about}, {how}"))
    return parts


def _distil_line(prepared: Prepared) -> str:
    session = prepared.session
    method = session.recipe.method
    given = [f"{name.replace('_', ' ')} {value}" for name, value in session.chosen.changed.items()]
    same = "the same student"
    if session.num_students > 1:
        same = f"{session.num_students} students"
    elif "alone" not in prepared.costs:
        same = f"{session.recipe.all_students()[0].model}, {prepared.parameters['student'][0]:,} parameters"
    return ", ".join([f"{same} by {method.name}", *given, _epochs(prepared.costs["distil"].epochs)])


def _epochs(number: int) -> str:
    return figures.count(number, "epoch")


def _finish_seconds(prepared: Prepared) -> float:
    data = prepared.session.splits.test or prepared.session.splits.validation
    samples = 0 if data is None else len(data)
    exported = _EXPORT_SECONDS if prepared.session.recipe.export.to else 0.0
    return exported + samples * sum(2 * cost.scoring for cost in prepared.costs.values())


def _chosen(prepared: Prepared) -> str:
    session = prepared.session
    where = session.machine
    parts = [prepared.computing]
    if where.micro_batch and session.recipe.machine.micro_batch == "auto":
        size = session.recipe.train.batch_size
        parts.append(f"{where.micro_batch} samples at once, for memory; the batch stays {size}")
    if prepared.caching.why:
        how = f" ({', '.join(prepared.fast.names())})" if prepared.fast.names() else ""
        parts.append(f"teacher live{how}: {prepared.caching.why}")
    return "; ".join(parts)


def _first_figures(prepared: Prepared, folder: RunFolder, plan: Plan, source: str) -> dict[str, Any]:
    session = prepared.session
    return {
        "state": "running",
        "name": session.recipe.name,
        "folder": str(folder),
        "source": f"{folder}/recipe.toml" if session.recipe.was_changed else source,
        "started": _now(),
        "planned_seconds": round(plan.seconds, 1),
        "plan": plan.to_json(),
        "recipe": session.recipe.given(),
        "recipe_fingerprint": session.recipe.fingerprint(),
        "machine": {
            **machine.facts(),
            "used": machine.describe(session.machine),
            "choices": asdict(session.machine),
        },
        "data": {
            "source": session.splits.name,
            "fingerprint": session.splits.fingerprint(),
            "samples": {name: len(data) for name, data in session.splits.parts().items()},
            "labels": session.labelled,
            "classes": session.splits.classes,
            "pictures": session.statistics is not None,
            "notes": list(prepared.notes),
        },
        "inputs": _inputs(session.recipe),
    }


def _inputs(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of the weight files that the recipe names."""
    found = {}
    for spec in [*recipe.all_teachers(), *recipe.all_students()]:
        path = Path(spec.weights) if spec.weights not in (None, "train") else None
        for file in [path] if path is not None and path.is_file() else []:
            found[str(file)] = checksum(file)
    return found


def _same_inputs(session: Session, run: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuses to go on with other data or other weights than the run began with."""
    if session.splits.fingerprint() != run["data"]["fingerprint"]:
        raise RequestError(
            f"the data of {session.splits.name} are not those that {folder} began with",
            fix="put them back, or start a new run with --output",
        )
    for path, digest in _inputs(session.recipe).items():
        if run["inputs"].get(path) != digest:
            raise RequestError(f"{path} is not the file that {folder} began with", fix="put it back")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
