"""The teachers' answers in a run: whether they are stored, where, and the phase that writes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from limbeck._run.counting import CountLine
from limbeck._run.screen import Screen
from limbeck._run.team import Team
from limbeck._show import figures
from limbeck.cache import BATCH, CachedTeacher, Store, free_bytes
from limbeck.data.views import view_number
from limbeck.errors import RequestError
from limbeck.method import Method
from limbeck.record import Record
from limbeck.teacher import Teacher

if TYPE_CHECKING:
    from limbeck._run.session import Session

#: A cache takes at most this part of the free disk; else the teacher runs live.
_SHARE = 0.25
_FEW = 16


@dataclass(frozen=True)
class Caching:
    """What was decided about the answers of a run's teachers.

    Args:
        on: whether they are stored.
        why: where they are not, the reason, as a sentence for the plan.
        views: the view numbers that are stored.
        store: how answers are kept.
        layers: stored beside the outputs.
        answers: of all teachers in all views.
        bytes: that they take; `missing`: answers to be written, as far as that is known.
        kept_mass: with top-k, the least part of the probability that the kept classes hold, of any teacher.
        seconds: that writing takes.
    """

    on: bool
    why: str = ""
    views: tuple[int, ...] = ()
    store: Store = field(default_factory=Store)
    layers: tuple[str, ...] = ()
    answers: int = 0
    bytes: int = 0
    missing: int = 0
    kept_mass: float | None = None
    seconds: float = 0.0


def decide(
    session: Session, method: Method, teachers: Sequence[nn.Module], trained: Sequence[int]
) -> Caching:
    """Whether the teachers' answers are stored, by rule; "require" refuses where they cannot be.

    Args:
        session: of the run.
        method: built once on the teachers.
        teachers: its networks.
        trained: numbers of those that are yet to be trained: nothing of theirs can be there.
    """
    mode, card = session.recipe.cache.mode, method.card
    if card.teacher == "none":
        return Caching(False)
    if mode == "off":
        return Caching(False, "as cache.mode says")
    try:
        _check(session, method)
        found = _size(session, method, teachers, trained)
    except RequestError as error:
        if mode == "require":
            where = error.where or session.recipe.where("cache", "mode", value=True)
            raise RequestError(error.message, fix=error.fix or 'mode = "auto"', where=where) from error
        return Caching(False, error.message)
    return found


def _places(method: Method) -> int:
    """How many views of a sample stand in one batch, at most; what a chain decides as it goes comes later."""
    stages = method.stages()
    return max((stage.views for stage in stages), default=1) if isinstance(stages, Sequence) else 1


def _check(session: Session, method: Method) -> None:
    """Refuses what no stored answer can do."""
    card = method.card
    if card.teacher in _USES:
        raise RequestError(f"{card.slug} {_USES[card.teacher]}")
    if session.views == "fresh":
        raise RequestError("every epoch shows new views (data.views)")
    if session.train.mixes:
        raise RequestError("mixed samples (data.mix) are new in every batch")
    if session.recipe.cache.top_k is not None and method.top_k_temperatures() is None:
        raise RequestError(
            f"{card.slug} needs the teacher's whole outputs, and cache.top_k is given",
            fix="leave top_k out",
            where=session.recipe.where("cache", "top_k", value=True),
        )


#: Why the answers of a teacher are not enough, by what a card says that the method uses.
_USES = {
    "weights": "reads the teacher's weights",
    "live": "needs the live teacher",
    "trained": "trains its teacher along",
}


def _size(
    session: Session,
    method: Method,
    teachers: Sequence[nn.Module],
    trained: Sequence[int],
) -> Caching:
    recipe, store = session.recipe, store_of(session, method)
    views = tuple(view_number(view, place) for view in session.shown for place in range(_places(method)))
    layers = tuple(sorted(method.tapped["teacher"]))
    answers = size = missing = 0
    masses: list[float] = []
    few = session.splits.train.batch(list(range(min(_FEW, len(session.splits.train)))))
    for number, network in enumerate(teachers):
        Teacher(network, task=session.splits.task).check_steady(few)
        cached = teacher_on(session, number, network, Caching(True, store=store, layers=layers))
        answers += len(session.splits.train) * len(views)
        size += cached.bytes_of(views)
        masses += [mass for mass in [cached.kept_mass()] if mass is not None]
        missing += len(session.splits.train) * len(views) if number in trained else cached.missing(views)
    free = free_bytes(Path(recipe.cache.folder))
    if missing / answers * size > _SHARE * free:
        raise RequestError(
            f"{answers:,} answers would take {figures.size(size)} of {figures.size(free)} free disk",
            fix="cache.top_k, cache.dtype, fewer data.views or layers, or another cache.folder",
        )
    each = sum(_seconds(session, network) for network in teachers) / len(teachers)
    kept = min(masses, default=None)
    return Caching(True, "", views, store, layers, answers, size, missing, kept, missing * each)


def store_of(session: Session, method: Method) -> Store:
    """As the recipe asks for it; the mass beside top-k is kept where the method reads it."""
    given = session.recipe.cache
    own = method.top_k_temperatures() or ()
    temperatures = tuple(sorted({1.0, *given.temperatures, *own}))
    return Store(given.dtype, given.top_k, temperatures)


def _seconds(session: Session, network: nn.Module) -> float:
    """Of one answer, from two short forwards of which the second counts."""
    data = session.splits.train
    batch = data.batch(list(range(min(4 * _FEW, len(data)))))
    teacher = Teacher(network.to(session.machine.device), task=session.splits.task)
    taken = 0.0
    for _ in range(2):
        began = time.perf_counter()
        teacher(batch)
        taken = time.perf_counter() - began
    return taken / len(batch["index"])


def teacher_on(session: Session, number: int, network: nn.Module, caching: Caching) -> CachedTeacher:
    """A teacher of the run with its cache, in a folder named after all that its answers depend on."""
    label = session.recipe.all_teachers()[number].model
    readable = "".join(c if c.isalnum() or c in "-_." else "-" for c in label).strip("-.")[-40:]
    folder = Path(session.recipe.cache.folder) / (readable or "teacher")
    cached = CachedTeacher(
        network,
        folder,
        session.splits.train,
        task=session.splits.task,
        paths=caching.layers,
        store=caching.store,
    )
    cached.name_after_key()
    return cached


class Repeating(Teacher):
    """Answers the same batch again without computing: a cached teacher's step, before there is a cache."""

    _last: tuple[Any, Record] | None = None

    def reading(self, paths: Sequence[str], *, task: Any = None) -> Repeating:
        """The same at other layers."""
        return Repeating(self.model, task=task or self.task, paths=paths)

    def __call__(self, batch: Any, *, output: bool = True) -> Record:
        """As a teacher; the last answer is kept."""
        batch = self.task.batch(batch)
        asked = (tuple(batch["index"].tolist()), str(next(self.model.parameters()).device))
        if self._last is None or self._last[0] != asked:
            self._last = asked, super().__call__(batch)
        return self._last[1]


@dataclass(frozen=True)
class Filled:
    """What writing a cache came to.

    Attributes:
        folders: of the caches, one a teacher.
        answers: in all; `written`: of these now.
        bytes: that they take.
        seconds: that writing took.
    """

    folders: tuple[str, ...]
    answers: int
    written: int
    bytes: int
    seconds: float

    def stored(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folders": list(self.folders),
            "answers": self.answers,
            "written": self.written,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 1),
        }


def write(
    session: Session,
    networks: Sequence[nn.Module],
    caching: Caching,
    screen: Screen,
    team: Team,
    after: float,
    stop_if_asked: Callable[[], None],
) -> tuple[list[CachedTeacher], Filled]:
    """Writes the answers that are missing, each process its share, with a line on the screen.

    Args:
        session: of the run.
        networks: its teachers, with their weights.
        caching: what was decided.
        screen: where this process speaks.
        team: the processes.
        after: planned seconds of all that follows.
        stop_if_asked: raises when a signal came; whole shards are kept.
    """
    cached = [teacher_on(session, number, network, caching) for number, network in enumerate(networks)]
    line = CountLine(screen, "cache", caching.answers, after)
    each, began, written = caching.answers // len(cached), time.monotonic(), 0
    try:
        for number, teacher in enumerate(cached):

            def say(done: int, of: int, before: int = number * each) -> None:
                line.say(before + each - of + done)
                stop_if_asked()

            written += teacher.fill(
                caching.views,
                batch_size=session.machine.micro_batch or BATCH,
                workers=session.machine.workers,
                part=(team.rank, team.size),
                device=session.machine.device,
                progress=say,
            )
    finally:
        line.close()
    team.wait()
    folders = tuple(teacher.folder.as_posix() for teacher in cached)
    filled = Filled(folders, caching.answers, written, caching.bytes, time.monotonic() - began)
    line.finish(filled.written, filled.seconds)
    return cached, filled


def plan_line(caching: Caching) -> str:
    """What the plan says of the answers that will be stored."""
    views = f" in {len(caching.views)} views" if len(caching.views) > 1 else ""
    layers = f", {len(caching.layers)} layer{'s' * (len(caching.layers) > 1)} each" if caching.layers else ""
    top = ""
    if caching.kept_mass is not None:
        hottest = max(caching.store.temperatures)
        top = f", top {caching.store.top_k} with {caching.kept_mass:.0%} of the mass at T {hottest:g}"
    there = ""
    if caching.missing == 0:
        there = ", all stored already"
    elif caching.missing < caching.answers:
        there = f", {caching.answers - caching.missing:,} stored already"
    return f"{caching.answers:,} teacher answers{views}{layers}{top}, {figures.size(caching.bytes)}{there}"


def figures_of(caching: Caching, filled: Filled | None) -> Mapping[str, Any]:
    """What run.json says of it."""
    if not caching.on:
        return {"on": False, "why": caching.why}
    return {
        "on": True,
        "views": len(caching.views),
        "dtype": caching.store.dtype,
        "top_k": caching.store.top_k,
        "kept_mass": caching.kept_mass,
        "layers": list(caching.layers),
        **(filled.stored() if filled is not None else {}),
    }
