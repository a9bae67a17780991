"""The parts of a run, built from its recipe: data, networks, method; and what they will cost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from limbeck._fast.steps import Fast
from limbeck._measure import timing
from limbeck._recipe.sections import MethodChoice, Network, TapNames
from limbeck._run import cost, live, machine, networks
from limbeck._run.caching import Caching, decide
from limbeck._run.chance import refuse_at_chance
from limbeck._run.checks import Chosen, check_recipe
from limbeck._run.choices import check_compiler, compilation, settle, turned_back
from limbeck.data.dataset import Dataset, Splits
from limbeck.data.selection import is_labelled, keep_labels
from limbeck.data.sources import load_source
from limbeck.engine.settings import Machine, Training
from limbeck.errors import RequestError
from limbeck.method import Method
from limbeck.methods.plain import Plain
from limbeck.models.building import Built
from limbeck.recipe import Recipe
from limbeck.teacher import Teacher

#: Students of a cohort for which one [student] is given.
_COHORT = 2
#: Of augmented pictures, where the recipe leaves their number open.
_FEWEST_VIEWS = 4


@dataclass(frozen=True)
class Session:
    """A run whose recipe and data are read.

    Args:
        recipe: as given, with every `--set`.
        chosen: the method, with all its hyper-parameters.
        machine: what "auto" became.
        splits: the data as teachers see them.
        train: the training samples as students see them, with `data.labels` labels.
        statistics: of the training pictures, by channel; None for other inputs.
        taps: the layers that the method reads; None until it was built once, or for methods that read none.
    """

    recipe: Recipe
    chosen: Chosen
    machine: Machine
    splits: Splits
    train: Dataset
    statistics: networks.Pixels | None = None
    taps: Mapping[str, Sequence[str]] | None = None

    # -- networks and methods, built anew at every call ------------------------------------------------

    def seed(self, what: str) -> int:
        """A seed for one purpose, from the recipe's."""
        return int.from_bytes(hashlib.sha256(f"{self.recipe.seed} {what}".encode()).digest()[:7], "big")

    def build_teacher(self, number: int = 0) -> Built:
        """A teacher as the recipe describes it, with the weights that it names."""
        spec = self.recipe.all_teachers()[number]
        weights = None if spec.weights == "train" else spec.weights
        return self._network(spec, weights, f"teacher {number}", number, "teacher")

    def teacher(self, number: int = 0) -> nn.Module:
        """The network of `build_teacher`, its outputs in the order of the data's classes."""
        return networks.by_name(self.build_teacher(number), self.splits.classes, "the teacher")

    def build_student(self, number: int = 0) -> Built:
        """A student before training; equal at every call."""
        specs = self.recipe.all_students()
        spec = specs[number % len(specs)]
        return self._network(spec, spec.weights, f"student {number}", number % len(specs), "student")

    def student(self, number: int = 0) -> nn.Module:
        """The network of `build_student`."""
        return self.build_student(number).network

    def _network(self, spec: Network, weights: str | None, what: str, number: int, role: str) -> Built:
        path = (role,) if getattr(self.recipe, role) is not None else (f"{role}s", number)
        return networks.build(self.recipe, spec, weights, self.splits, self.statistics, path, self.seed(what))

    @property
    def num_students(self) -> int:
        """How many the method trains."""
        given = len(self.recipe.all_students())
        return max(given, _COHORT) if "students" in self.chosen.takes else 1

    def plain(self, network: nn.Module) -> Method:
        """Supervised training of a network on the labelled samples."""
        return Plain(network, task=self.splits.task)

    def method(self, teachers: Sequence[nn.Module | Teacher]) -> Method:
        """The method of the recipe, with fresh students, on networks or what answers for them."""
        takes = self.chosen.takes
        given: dict[str, Any] = {"task": self.splits.task, **self.chosen.hyperparameters}
        if "students" in takes:
            given["students"] = [self.student(number) for number in range(self.num_students)]
        else:
            given["student"] = self.student()
        if teachers and self.chosen.method.card.teacher != "none":
            given |= {"teacher": teachers[0]} if len(teachers) == 1 else {"teachers": list(teachers)}
        if "taps" in takes and self.taps is not None:
            # A recipe has both keys; a network of which no layer is named is left to the method.
            given["taps"] = {side: paths for side, paths in self.taps.items() if paths}
        if "example" in takes:
            given["example"] = self.example()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed("method"))
            try:
                return self.chosen.method(**given)
            except RequestError as error:
                error.where = error.where or _refused(self.recipe, error.message)
                raise

    def example(self) -> dict[str, Any]:
        """A batch of training samples, as large as those that pass through the networks at once."""
        size = min(self.recipe.train.batch_size, len(self.train))
        limit = self.machine.micro_batch or size
        return self.train.batch(torch.arange(size // -(-size // limit)))

    # -- settings --------------------------------------------------------------------------------------

    @property
    def alone_settings(self) -> Training:
        """The training of the plain student: the same, with the groups that it has."""
        names = {
            group
            for stage in self.plain(self.student()).stages()
            for u in stage.updates
            for group in u.trains
        }
        kept = {name: group for name, group in self.recipe.train.groups.items() if name in names}
        return self.recipe.train.model_copy(update={"groups": kept})

    @property
    def views(self) -> int | Literal["fresh"]:
        """What `fit` takes as views of the students, by rule where the recipe says "auto".

        A quarter of the epochs, so that the teacher answers a quarter as often as live, and every view comes
        four times. It does not depend on the cache: students see the same with and without one.
        """
        given, epochs = self.recipe.data.views, self.recipe.train.epochs
        if not self.train.augmented:
            return 0
        if given == "auto":
            return max(min(epochs, max(_FEWEST_VIEWS, -(-epochs // 4))), 1)
        return given

    @property
    def shown(self) -> tuple[int, ...]:
        """The view numbers that students see, where they are not new in every epoch."""
        return (0,) if self.views in (0, "fresh") else tuple(range(1, int(self.views) + 1))

    @property
    def compares(self) -> bool:
        """Whether a student is trained alone too: as the recipe says, unless that is all it asks for."""
        return self.recipe.alone and self.chosen.method is not Plain

    @property
    def labelled(self) -> int:
        """Training samples whose label the students see."""
        return int(is_labelled(self.train.targets()).sum())


def open_session(recipe: Recipe, chosen_machine: Machine | None = None) -> Session:
    """Checks a recipe and reads its data.

    Args:
        recipe: the recipe.
        chosen_machine: what an earlier session chose; decided now unless given.

    Raises:
        RequestError: the recipe, the data or the networks are wrong; nothing was written.
    """
    chosen = check_recipe(recipe)
    where = chosen_machine or machine.choose(recipe)
    check_compiler(where, recipe)
    if where.threads:
        torch.set_num_threads(where.threads)
    splits, train = read_data(recipe)
    taps = recipe.method.taps
    names = None if taps is None else {"student": taps.student, "teacher": taps.teacher}
    statistics = networks.statistics_of(splits.train)
    return Session(recipe, chosen, where, splits, train, statistics, names)


def read_data(recipe: Recipe) -> tuple[Splits, Dataset]:
    """The data as teachers see them, and the training samples as students see them."""
    options = recipe.data.model_dump(exclude={"source", "labels", "views"})
    try:
        splits = load_source(recipe.data.source, **options)
        return splits, keep_labels(splits.train, recipe.data.labels, recipe.data.seed)
    except RequestError as error:
        raise RequestError(
            error.message, fix=error.fix, near=error.near, where=error.where or _blamed(recipe, error.message)
        ) from error


def _blamed(recipe: Recipe, said: str) -> str | None:
    """The place of the key of [data] that a message names, else of the source."""
    for name in recipe.data.model_fields_set - {"source"}:
        if f"data.{name}" in said:
            return recipe.where("data", name, value=True)
    return recipe.where("data", "source", value=True)


def _refused(recipe: Recipe, said: str) -> str | None:
    """The place of the key of [method] that a message names, else of the method."""
    method = recipe.method
    layers = [] if method.taps is None else [*(method.taps.student or ()), *(method.taps.teacher or ())]
    if any(repr(layer) in said for layer in layers):
        return recipe.where("method", "taps", value=True)
    named = next((name for name in method.hyperparameters if name in said), "name")
    return recipe.where("method", named, value=True)


@dataclass(frozen=True)
class Prepared:
    """A session that took its dry steps.

    Args:
        session: with machine and taps as chosen.
        trained: numbers of the teachers that are trained first.
        frozen_teacher: the method uses a teacher that was trained before, not one that is trained along.
        costs: by phase.
        caching: what was decided about the teachers' answers.
        fast: what makes teachers that answer live faster.
        computing: precision, layout and compilation, and why.
        notes: what was decided or noticed, a sentence each.
        parameters: of each network by role, "teacher", "student".
        bytes: that each network takes on disk, by role.
    """

    session: Session
    trained: Sequence[int]
    frozen_teacher: bool
    costs: Mapping[str, cost.Cost]
    caching: Caching
    fast: Fast
    computing: str
    notes: Sequence[str]
    parameters: Mapping[str, Sequence[int]]
    bytes: Mapping[str, Sequence[int]]


def prepare(session: Session) -> Prepared:
    """Builds everything once, runs the dry steps of every phase, and throws the networks away."""
    recipe, data = session.recipe, session.splits
    uses_teacher = session.chosen.method.card.teacher != "none"
    built = [session.build_teacher(n) for n in range(len(recipe.all_teachers()))] if uses_teacher else []
    teachers = [networks.by_name(each, data.classes, "the teacher") for each in built]
    first = session.method(teachers)
    session = _with_taps(session, first)
    trained = [] if first.teacher is None else _untrained(recipe)
    if first.teacher is not None:
        _check_given(session, teachers)
    learners = [session.build_student(n) for n in range(session.num_students)]
    students = [each.network for each in learners]
    caching = decide(session, first, teachers, trained)
    fast = live.steps(session, teachers) if not caching.on else Fast()
    sources = live.rehearsed(session, teachers, caching, fast)
    todo: list[tuple[str, Callable[[], Method], Dataset, Training]] = []
    for number in trained:
        settings = recipe.training_of(recipe.all_teachers()[number])
        todo.append((f"teacher {number}", partial(_plain_teacher, session, number), data.train, settings))
    if session.compares:
        todo.append(("alone", partial(_plain_student, session), session.train, session.alone_settings))
    todo.append(("distil", partial(session.method, sources), session.train, recipe.train))
    example = data.task.batch(session.example())
    choice = settle(session.machine, recipe, students, [teachers[n] for n in trained], example, data.task)
    costs: dict[str, cost.Cost] = {}
    for name, make, train, settings in todo:
        made = cost.measure(make, train, data.validation, settings, choice.machine)
        if made.machine.layout != choice.machine.layout:
            choice = turned_back(choice, recipe, name)
        costs[name], choice = made.cost, replace(choice, machine=made.machine)
    choice = compilation(choice, recipe, (each.seconds for each in costs.values()))
    session = replace(session, machine=choice.machine)
    roles: dict[str, list[nn.Module]] = {"teacher": teachers, "student": list(students)}
    notes = [note for each in [*built, *learners] for note in each.notes]
    if ":" in recipe.method.name:
        notes.append(f"the method is code of yours, {recipe.method.name}, which is run")
    return Prepared(
        session,
        trained,
        first.teacher is not None,
        costs,
        caching,
        live.compiled_where_long(session, fast, costs["distil"].seconds),
        choice.text(),
        list(dict.fromkeys([*recipe.notes(), *choice.notes, *notes, *data.notes])),
        {role: [timing.parameters(network) for network in found] for role, found in roles.items()},
        {role: [networks.stored_bytes(network) for network in found] for role, found in roles.items()},
    )


def _check_given(session: Session, teachers: Sequence[nn.Module]) -> None:
    """Refuses teachers with given weights that know nothing about the data."""
    recipe = session.recipe
    data = session.splits.validation or session.splits.train
    for number, (spec, network) in enumerate(zip(recipe.all_teachers(), teachers, strict=True)):
        if spec.weights != "train" and not spec.accept_chance:
            path = ("teacher",) if recipe.teacher is not None else ("teachers", number)
            refuse_at_chance(network, data, session.splits.task, recipe.where(*path, "weights", value=True))


def _plain_teacher(session: Session, number: int) -> Method:
    return session.plain(session.teacher(number))


def _plain_student(session: Session) -> Method:
    return session.plain(session.student())


def _untrained(recipe: Recipe) -> list[int]:
    """The teachers whose weights are to be trained first."""
    return [number for number, spec in enumerate(recipe.all_teachers()) if spec.weights == "train"]


def _with_taps(session: Session, method: Method) -> Session:
    """The session with the layers that the method took, so that every further one takes the same."""
    if not session.chosen.method.card.taps:
        return session
    return replace(session, taps={side: list(paths) for side, paths in method.tapped.items()})


def resolved(prepared: Prepared) -> Recipe:
    """The recipe with every default and every choice, as resolved.toml keeps it."""
    session = prepared.session
    recipe = session.recipe
    taps = session.taps
    method = MethodChoice(
        name=recipe.method.name,
        taps=None if taps is None else TapNames(student=list(taps["student"]), teacher=list(taps["teacher"])),
        **{name: value for name, value in session.chosen.hyperparameters.items() if value is not None},
    )
    found = recipe.model_dump()
    found["data"]["views"] = session.views
    if not prepared.caching.on:
        found["cache"]["mode"] = "off"
    for path, spec in [("teacher", recipe.teacher)] if recipe.teacher else []:
        found[path]["train"] = recipe.training_of(spec).model_dump()
    for number, spec in enumerate(recipe.teachers):
        found["teachers"][number]["train"] = recipe.training_of(spec).model_dump()
    found["machine"] = machine.written(session.machine).model_dump() | {"teacher": prepared.fast.names()}
    return Recipe(**{**found, "method": method.model_dump()})
