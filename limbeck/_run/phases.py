"""The phases of a run that train: teacher, student alone, distilled student; each may be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from limbeck._run import live
from limbeck._run.caching import Filled, write
from limbeck._run.folder import RunFolder
from limbeck._run.listeners import Diary, Several, Trackers
from limbeck._run.screen import Screen
from limbeck._run.session import Prepared, Session, resolved
from limbeck._run.team import Team
from limbeck._show import figures
from limbeck.data.dataset import Dataset
from limbeck.engine import Fit, evaluate, fit
from limbeck.engine.interruption import Interruption
from limbeck.engine.settings import Training
from limbeck.errors import Interrupted
from limbeck.method import Method
from limbeck.teacher import Teacher


@dataclass
class Trained:
    """What came of a phase.

    Args:
        method: with its chosen weights.
        fit: the training; None where weights were read.
        validation: the chosen epoch's figures by network; empty without validation data.
    """

    method: Method
    fit: Fit | None
    validation: Mapping[str, Mapping[str, float]]


@dataclass
class Runner:
    """Trains the phases of a run in its folder.

    Args:
        prepared: the run; `folder`: where it goes; `screen`: where it speaks.
        planned: seconds by name of the part, as the plan said.
        interruption: the signal that stops it.
        resume: goes on from the checkpoints there are.
        team: the processes of the run.
        filled: what writing the teachers' answers came to, once it is done.
    """

    prepared: Prepared
    folder: RunFolder
    screen: Screen
    planned: Mapping[str, float]
    interruption: Interruption
    resume: bool
    team: Team
    filled: Filled | None = None

    @property
    def session(self) -> Session:
        """The session of the run."""
        return self.prepared.session

    def phases(self) -> dict[str, Trained]:
        """All of them, in order: `teacher 0`, ..., `alone`, `distil`."""
        session = self.session
        done: dict[str, Trained] = {}
        teachers = []
        uses_teacher = session.chosen.method.card.teacher != "none"
        for number in range(len(session.recipe.all_teachers()) if uses_teacher else 0):
            network = session.teacher(number)
            if number in self.prepared.trained:
                name = f"teacher {number}"
                settings = session.recipe.training_of(session.recipe.all_teachers()[number])
                done[name] = self._train(name, session.plain(network), session.splits.train, settings)
            elif self.prepared.frozen_teacher:
                done[f"teacher {number}"] = self._read(number, network)
            teachers.append(network)
        sources = self._sources(teachers)
        if session.compares:
            method = session.plain(session.student())
            done["alone"] = self._train("alone", method, session.train, session.alone_settings)
        done["distil"] = self._train("distil", session.method(sources), session.train, session.recipe.train)
        return done

    def _sources(self, networks: Sequence[nn.Module]) -> Sequence[nn.Module | Teacher]:
        """What the method learns from: live teachers, or their stored answers, written now."""
        session, caching = self.session, self.prepared.caching
        if not caching.on:
            sources = live.answering(session, networks, self.prepared.fast)
            stay = live.settled(session, sources)
            if stay is not None and stay != self.prepared.fast:
                self.folder.settle(resolved(replace(self.prepared, fast=stay)))
            return sources
        after = self._after("cache")
        cached, self.filled = write(
            session, networks, caching, self.screen, self.team, after, self.stop_if_asked
        )
        return cached

    def _read(self, number: int, network: nn.Module) -> Trained:
        """A teacher whose weights were given: scored once."""
        session = self.session
        method = session.plain(network).to(session.machine.device)
        scores: dict[str, dict[str, float]] = {}
        if session.splits.validation is not None:
            scores = {"student": evaluate(network, session.splits.validation, session.splits.task)}
        task = session.splits.task
        shown = (
            f"  validation {figures.score(task.kind, scores['student'][task.score_name])}" if scores else ""
        )
        source = session.recipe.all_teachers()[number].weights
        self.screen.finished("teacher", f"weights from {source}{shown}", 0.0)
        return Trained(method, None, scores)

    def _train(self, name: str, method: Method, data: Dataset, settings: Training) -> Trained:
        """One training, with its line on the screen, its checkpoints and its entries in the files."""
        session, task = self.session, self.session.splits.task
        epochs = self.prepared.costs[name].epochs
        shown = name.removesuffix(" 0") if len(self.prepared.trained) < 2 else name
        before = sum(entry["phase"] == name for entry in self.folder.metrics())
        fresh: int | Literal["fresh"] = "fresh" if data.augmented else 0  # a teacher's own training
        line = self.screen.phase(shown, epochs, task.kind, task.score_name, self._after(shown), before)
        diary = Diary(self.folder, name)
        names = session.recipe.log.to
        trackers = [Trackers(names, self.folder.path.name, self.folder, name)] if names else []
        try:
            made = fit(
                method,
                data,
                session.splits.validation,
                settings,
                seed=session.seed(name) % (1 << 31),
                folder=self.folder.path / "checkpoints" / name.replace(" ", "-"),
                resume=self.resume,
                views=session.views if name in ("alone", "distil") else fresh,
                listener=Several([line, diary, *trackers]),
                machine=session.machine,
                interruption=self.interruption,
            )
        finally:
            line.close()
            for tracker in trackers:
                tracker.close()
        self.folder.replace_metrics(name, made.history)
        score = next(iter(made.chosen_scores.values()), {}).get(task.score_name)
        line.finish(made.seconds, score, len(made.history))
        self.stop_if_asked()
        return Trained(made.load("chosen"), made, made.chosen_scores)

    def _after(self, name: str) -> float:
        """Planned seconds of all that follows a phase."""
        names = list(self.planned)
        return sum(self.planned[later] for later in names[names.index(name) + 1 :]) if name in names else 0.0

    def stop_if_asked(self) -> None:
        """Between two phases a signal stops the run as within one."""
        number = self.interruption.signal_number
        if number is not None:
            raise Interrupted(number, "stopped on request; everything is saved")
