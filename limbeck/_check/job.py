"""The verb `check`: opens a recipe, looks for every fault that can be known, takes dry steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck._check import costs, layers, samples, teachers, terms, words
from limbeck._check.check import Check
from limbeck._check.desk import Desk, Role
from limbeck._check.teachers import Given
from limbeck._run import machine, networks
from limbeck._run.folder import RunFolder
from limbeck._run.job import default_screen, plan_of
from limbeck._run.screen import Screen
from limbeck._run.session import Prepared, Session, open_session, prepare, read_data
from limbeck.data.dataset import Dataset, describe_inputs
from limbeck.errors import LimbeckError, RequestError, RunError
from limbeck.method import Method
from limbeck.recipe import Recipe
from limbeck.task.batches import inputs_of


def check(recipe: Recipe, source: str, screen: Screen | None) -> Check:
    """See `limbeck.check`."""
    began = time.monotonic()
    desk = Desk(recipe)
    said = words.Words()
    session = _opened(desk, recipe)
    if session is not None:
        _look(desk, session, said, screen or default_screen())
    findings = sorted(desk.findings, key=lambda each: (each.severity != "error", each.code))
    return Check(
        source,
        said.lines,
        said.figures,
        findings,
        desk.passed,
        list(dict.fromkeys(desk.notes)),
        time.monotonic() - began,
    )


def _opened(desk: Desk, recipe: Recipe) -> Session | None:
    """The session; without the pictures that cannot be read, which are found later."""
    desk.looks("K109")
    try:
        return open_session(recipe)
    except RunError:
        return open_session(_skipping(recipe))
    except RequestError as error:
        if not _missing(error):
            raise
        desk.refused("K109", error)
        return None


def _skipping(recipe: Recipe) -> Recipe:
    data = recipe.data.model_copy(update={"skip_unreadable": True})
    return recipe.model_copy(update={"data": data})


def _missing(error: LimbeckError) -> bool:
    return "not installed" in error.message


def _look(desk: Desk, session: Session, said: words.Words, screen: Screen) -> None:
    session, parts = _read(desk.recipe, session, screen)
    samples.check_data(desk, session.splits, session.train, parts)
    desk.notes += session.splits.notes
    given = _networks(desk, session)
    learners = [_built(desk, session, "student", n) for n in range(session.num_students)]
    students = [each for each in learners if each is not None]
    _scores(desk, session, given, students, said)
    if students:
        teachers.check_student(desk, given, students[0])
        _withheld(desk, session, given, students)
    if len(given) < _needed(session) or len(students) < len(learners) or desk.has("K100"):
        return
    layers.check_paths(desk, session, given, students)
    method = None if desk.has("K101") else _method(desk, session, given)
    if method is None:
        return
    said.pairs(method, proposed=session.recipe.method.taps is None)
    costs.check_cache(desk, session, method, given)
    if not desk.has("K104", "K105", "K106"):
        teachers.check_temperature(desk, session, method, given)
    _dry(desk, session, given, students, said)


def _read(recipe: Recipe, session: Session, screen: Screen) -> tuple[Session, dict[str, samples.Part]]:
    """Every sample read once; what is looked at further is without those that cannot be read."""
    skips = session.recipe.data.skip_unreadable
    whole = session.splits if skips == recipe.data.skip_unreadable else read_data(recipe)[0]
    parts = samples.read_through(whole, screen)
    broken = any(part.unreadable for part in parts.values())
    return (session if skips or not broken else open_session(_skipping(recipe))), parts


def _needed(session: Session) -> int:
    return len(session.recipe.all_teachers()) if _uses_teacher(session) else 0


def _uses_teacher(session: Session) -> bool:
    return session.chosen.method.card.teacher != "none"


def _networks(desk: Desk, session: Session) -> list[Given]:
    """The teachers that could be built."""
    number = _needed(session)
    if number:
        desk.looks("K100", "K103")
    found = [_built(desk, session, "teacher", n) for n in range(number)]
    return [each for each in found if each is not None]


def _built(desk: Desk, session: Session, role: Role, number: int) -> Given | None:
    """A network as the recipe describes it; what it is refused for becomes a finding."""
    specs: Sequence[Any] = desk.recipe.all_teachers() if role == "teacher" else desk.recipe.all_students()
    spec = specs[number % len(specs)]
    path = desk.table(role, number % len(specs))
    try:
        build = session.build_teacher if role == "teacher" else session.build_student
        built = build(number)
        matched = networks.by_name(built, session.splits.classes, f"the {role}")
    except RequestError as error:
        if _missing(error):
            desk.refused("K109", error, *path, "model")
        elif "outputs, the data need" in (error.fix or "") or "knows no class" in error.message:
            desk.refused("K103", error, *path, "weights")
        else:
            desk.refused("K100", error, *path, "weights" if spec.weights not in (None, "train") else "model")
        return None
    desk.notes += built.notes
    return Given(built, matched, number, spec.weights not in (None, "train"))


def _scores(
    desk: Desk, session: Session, given: Sequence[Given], students: Sequence[Given], said: words.Words
) -> None:
    """Scores on some validation samples, and what they tell of teachers with given weights."""
    name, data = teachers.sample_of(session)
    if not len(data):
        return
    found: dict[str, float] = {}
    scored: list[tuple[Role, Given]] = [("teacher", each) for each in given if each.known]
    scored += [("student", each) for each in students[:1]]
    for role, each in scored:
        with _fits(desk, role, each, data):
            if role == "teacher":
                teachers.check_answers(desk, session, each, data)
            score = teachers.score_of(each.network, session, data)
            found[role] = max(score, found.get(role, score))
    said.scores(session, name, data, found, students[0].known if students else False, bool(given))
    known = {role: score for role, score in found.items() if role == "teacher" or students[0].known}
    if not desk.has("K104", "K105", "K106"):
        teachers.check_rank(desk, session, known, len(data))


@contextmanager
def _fits(desk: Desk, role: Role, network: Given, data: Dataset) -> Iterator[None]:
    """What a network is refused for on real samples becomes a finding."""
    path = (*desk.table(role, network.number), "model")
    try:
        yield
    except RequestError as error:
        desk.refused("K100", error, *path)
    except RuntimeError:
        inputs = describe_inputs(data.batch([0])["inputs"])
        fix = "a model for such inputs, or size and channels in its table"
        desk.finds("K100", f"the {role} fails on the inputs of the data, {inputs}", *path, fix=fix)


def _withheld(desk: Desk, session: Session, given: Sequence[Given], students: Sequence[Given]) -> None:
    """Inputs of the data that one network takes and another does not."""
    inputs = session.splits.train.batch([0])["inputs"]
    if not isinstance(inputs, dict):
        return
    for role, each in [*(("teacher", g) for g in given), *(("student", s) for s in students)]:
        names, takes_any = inputs_of(each.network)
        left = sorted(set(inputs) - set(names))
        if left and not takes_any:
            desk.notes.append(f"the {role} takes no {', '.join(left)}: not given to it")


def _method(desk: Desk, session: Session, given: Sequence[Given]) -> Method | None:
    """The method on the teachers; what it refuses becomes a finding."""
    taps, own = session.recipe.method.taps, session.recipe.method.hyperparameters
    desk.looks("K100", *(("K102",) if session.chosen.method.card.taps else ()))
    desk.looks(*(("K117",) if own.get("variant") == "decoupled" else ()))
    try:
        return session.method([each.network for each in given])
    except RequestError as error:
        path = None if taps is None else layers.blamed(taps, error.message)
        if path is not None or (session.chosen.method.card.taps and "layer" in error.message):
            desk.refused("K102", error, "method", *(path or ("name",)))
        elif "at least 3" in error.message and "variant" in own:
            desk.refused("K117", error, "method", "variant")
        else:
            named = next((key for key in own if key in error.message), "name")
            desk.refused("K100", error, "method", named)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        desk.finds("K100", f"the method cannot be built on these networks: {first}", "method", "name")
    return None


def _dry(
    desk: Desk, session: Session, given: Sequence[Given], learners: Sequence[Given], said: words.Words
) -> None:
    """Memory, loss terms, and what the whole run will take, by dry steps on networks of their own."""
    networks_of, students = ([each.network for each in those] for those in (given, learners))
    trained = any(each.known for each in learners)
    if (session.machine.device or "cpu") == "cpu":
        need = costs.memory_of_a_step(session, students, networks_of)
        costs.check_memory(desk, session, need, machine.memory())
    if desk.has("K111"):
        return
    try:
        found = terms.dry_terms(session, networks_of)
        terms.check_terms(desk, found, session, trained=trained)
        prepared = prepare(replace(session, recipe=_accepting(session.recipe)))
    except RequestError as error:
        if error.where is None or not any(each.message == error.message for each in desk.findings):
            desk.refused("K100", error, "method", "name")
        return
    except torch.OutOfMemoryError:
        desk.finds("K111", "a step of one sample does not fit the device", "train", "batch_size")
        return
    except RuntimeError as error:
        desk.finds("K100", f"a dry step failed: {str(error).partition(chr(10))[0]}", "method", "name")
        return
    _costs(desk, prepared, found, given, students, said)


def _costs(
    desk: Desk,
    prepared: Prepared,
    found: terms.Terms,
    given: Sequence[Given],
    students: Sequence[nn.Module],
    said: words.Words,
) -> None:
    session = prepared.session
    plan = plan_of(prepared, RunFolder(Path("runs") / session.recipe.name), "")
    costs.check_plan(desk, plan)
    costs.check_batches(desk, session, students)
    costs.check_mass(desk, prepared.caching, given)
    desk.notes += prepared.notes
    said.terms(found)
    said.costs(prepared, plan, found)


def _accepting(recipe: Recipe) -> Recipe:
    """The recipe with teachers that are no better than chance let through: that is a finding already."""
    if recipe.teacher is not None:
        return recipe.model_copy(
            update={"teacher": recipe.teacher.model_copy(update={"accept_chance": True})}
        )
    accepting = [each.model_copy(update={"accept_chance": True}) for each in recipe.teachers]
    return recipe.model_copy(update={"teachers": accepting})
