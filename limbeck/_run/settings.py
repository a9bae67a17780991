"""Runs side by side: those that differ only by their seed are one setting; students are paired by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from limbeck._report.answers import paired_difference
from limbeck._report.facts import Comparison, Curve, Model
from limbeck._run import closing, evidence
from limbeck._run.evidence import Evidence
from limbeck._run.folder import RunFolder
from limbeck._show import figures
from limbeck._show.intervals import Interval, mean_interval
from limbeck.errors import RequestError
from limbeck.recipe import Recipe

_ALONE, _REFERENCES = ("plain",), ("kd",)
_SERIES = ("s1", "s2", "s3", "s4", "s5", "s6")


@dataclass(frozen=True)
class ToldRun:
    """A finished run.

    Args:
        folder: of it.
        run: what run.json holds, or will hold.
        found: the kept answers; None where none were kept.
        metrics: of its epochs.
    """

    folder: RunFolder
    run: Mapping[str, Any]
    found: Evidence | None
    metrics: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, folder: RunFolder, run: Mapping[str, Any]) -> Self:
        """With what its folder keeps."""
        return cls(folder, run, evidence.read(folder), folder.metrics())

    @property
    def method(self) -> str:
        """As the recipe names it."""
        return str(self.run["recipe"].get("method", {}).get("name", "kd"))

    @property
    def is_alone(self) -> bool:
        """Whether all that was trained is the student alone."""
        return self.method in _ALONE

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it: classical distillation."""
        return self.method in _REFERENCES

    @property
    def seed(self) -> int:
        """Of the recipe."""
        return int(self.run["recipe"].get("seed", 0))

    @property
    def setting(self) -> str:
        """Equal for runs that differ only by seed, names and machine."""
        recipe = Recipe(**{**self.run["recipe"], "seed": 0})
        return f"{recipe.fingerprint()} {self.run['data']['fingerprint']}"

    def label(self, settings: Settings) -> str:
        """Method and seed, where a page holds several runs."""
        return f"{settings.label(settings.group_of(self))}, seed {self.seed}: {self.folder}"

    def network(self, key: str) -> Mapping[str, Any]:
        """What run.json says of a network; nothing where there is none."""
        found: Mapping[str, Any] = self.run["networks"].get(key, {})
        return found

    def teachers(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Key and figures of every teacher."""
        return [(key, about) for key, about in self.run["networks"].items() if key.startswith("teacher")]

    def alone(self) -> float | None:
        """The score of the student alone: beside the distilled one, or the result of a plain run."""
        about = self.network("distilled") if self.is_alone else self.network("alone")
        return about.get("score")


@dataclass(frozen=True)
class Settings:
    """The settings of some runs, each with its runs by seed."""

    runs: Sequence[ToldRun]
    groups: Sequence[Sequence[ToldRun]]

    @classmethod
    def of(cls, runs: Sequence[ToldRun]) -> Self:
        """Groups runs; refuses scores of different kinds."""
        kinds = {(run.run["score"]["kind"], run.run["score"]["name"]) for run in runs}
        if len(kinds) > 1:
            names = " and ".join(sorted(name for _, name in kinds))
            raise RequestError(
                f"the runs have different scores, {names}, which no table can hold", fix="a report for each"
            )
        alike = _by(runs, lambda run: run.setting)
        return cls(runs, [sorted(group, key=lambda run: run.seed) for group in alike.values()])

    # -- names ---------------------------------------------------------------------------------------------

    def label(self, group: Sequence[ToldRun]) -> str:
        """A setting in a few words: its method; where several share it, with the name of the recipe."""
        alike = _by((other[0] for other in self.groups), lambda run: run.method)[group[0].method]
        if len(alike) == 1:
            return group[0].method
        names, mine = [run.run["name"] for run in alike], group[0].run["name"]
        return f"{group[0].method} ({mine if names.count(mine) == 1 else group[0].folder})"

    def series(self, group: Sequence[ToldRun]) -> str:
        """Its colour; a plain student has that of a student alone."""
        if group[0].is_alone:
            return "alone"
        taught = [other for other in self.groups if not other[0].is_alone]
        return _SERIES[taught.index(group) % len(_SERIES)]

    def group_of(self, run: ToldRun) -> Sequence[ToldRun]:
        """The setting that a run belongs to."""
        return next(group for group in self.groups if any(run is each for each in group))

    def title(self) -> str:
        """Of the page."""
        return " and ".join(dict.fromkeys(run.run["name"] for run in self.runs))

    def about(self) -> str:
        """Who learned from whom on what, in a line."""
        told = []
        for data, runs in _by(self.runs, lambda run: run.run["data"]["source"]).items():
            methods = ", ".join(dict.fromkeys(self.label(self.group_of(run)) for run in runs))
            told.append(f"{_students(runs[0])}{_taught_by(runs[0])} with {methods}, on {data}")
        return "; ".join(told)

    # -- the table -----------------------------------------------------------------------------------------

    def models(self) -> list[Model]:
        """Teachers, students alone, distilled students, and the files made from them."""
        rows = []
        teachers = [
            (_teacher_name(run, key), run.seed, about) for run in self.runs for key, about in run.teachers()
        ]
        for name, held in _by(teachers, lambda each: each[0]).items():
            rows.append(_model("teacher", name, _different((seed, about) for _, seed, about in held)))
        alone = [(run.seed, run.network("alone")) for run in self.runs if run.network("alone")]
        if alone:
            rows.append(_model("alone", "student alone", _different(alone)))
        few = len(self.groups) <= 2
        for group in self.groups:
            only = group[0].is_alone and not alone
            name = "student alone" if only else f"student by {self.label(group)}"
            rows.append(_model(self.series(group), name, [run.network("distilled") for run in group]))
            for key, shown in closing.FILES.items() if few else ():
                files = [run.network(key) for run in group if run.network(key).get("score") is not None]
                if files:
                    rows.append(_model(self.series(group), shown, files, file=True))
        if len(self.runs) > 1:  # a note is of one run
            rows = [replace(row, note="") for row in rows]
        return rows

    def notes(self) -> list[str]:
        """How the figures of the table came about, and what keeps them from being compared."""
        told = []
        how = dict.fromkeys(run.run["latency"]["how"] for run in self.runs if run.run.get("latency"))
        told += [f"Latency: {' or '.join(how)}."] if how else []
        if any(len(group) > 1 for group in self.groups):
            told.append("Spread: standard deviation over the seeds; latency: median over the runs.")
        if len({run.run["data"]["fingerprint"] for run in self.runs}) > 1:
            told.append("The runs are not on the same data: their scores cannot be compared.")
        machines = {(run.run["machine"]["processor"], run.run["machine"]["used"]) for run in self.runs}
        if len(machines) > 1:
            shown = "; ".join(sorted(f"{processor}: {used}" for processor, used in machines))
            told.append(f"The runs were not made alike ({shown}): their times cannot be compared.")
        return told

    # -- did it help ---------------------------------------------------------------------------------------

    def helped(self) -> list[Comparison]:
        """Each setting against the same student alone and against kd, paired by seed."""
        told = []
        reference = [group for group in self.groups if group[0].is_reference]
        for group in self.groups:
            if group[0].is_alone:
                continue
            told.append(self._against(group, self._alone_of(group), "the same student alone"))
            if reference and group is not reference[0] and len(reference) == 1:
                scores = {run.seed: float(run.network("distilled")["score"]) for run in reference[0]}
                same = _same_data(group[0], reference[0][0])
                told.append(self._against(group, scores if same else {}, reference[0][0].method))
        return [each for each in told if each.differences]

    def _alone_of(self, group: Sequence[ToldRun]) -> dict[int, float]:
        """Scores of the student alone by seed: of the runs themselves, else of plain runs on their data."""
        others = [run for run in self.runs if run.is_alone and _same_data(run, group[0])]
        scores = [(run.seed, run.alone()) for run in [*others, *group]]
        return {seed: score for seed, score in scores if score is not None}

    def _against(self, group: Sequence[ToldRun], scores: Mapping[int, float], name: str) -> Comparison:
        paired = [
            (f"seed {run.seed}", float(run.network("distilled")["score"]) - scores[run.seed])
            for run in group
            if run.seed in scores
        ]
        interval = mean_interval([value for _, value in paired])
        how = f"95 % intervals over {figures.count(len(paired), 'seed')}, paired by seed (Student's t)."
        if interval is None:
            interval = _over_samples(group[0]) if len(paired) == 1 and name not in _REFERENCES else None
            how = "Fewer than three seeds: no interval over seeds."
            if interval is not None:
                how = (
                    f"{how} The one given is over the {group[0].run['score']['samples']:,} samples, paired; "
                    "other seeds may differ by more."
                )
        label = f"{self.label(group)} against {name}"
        return Comparison(self.series(group), label, paired, interval, how)

    # -- training ------------------------------------------------------------------------------------------

    def validation(self) -> list[Curve]:
        """The score on validation data after every epoch, of every training."""
        curves = []
        for run in self.runs:
            score_name = run.run["score"]["name"]
            seed = run.seed if len(self.runs) > 1 else None
            for phase, entries in _by(run.metrics, lambda entry: str(entry["phase"])).items():
                scores = [next(iter(entry["scores"].values()), {}).get(score_name) for entry in entries]
                points = [
                    (epoch + 1.0, float(score)) for epoch, score in enumerate(scores) if score is not None
                ]
                series, name = self._phase(run, phase)
                if points:
                    curves.append(Curve(series, name, points, _chosen(run, phase), seed))
        return [curve for place, curve in enumerate(curves) if curve not in curves[:place]]

    def terms(self) -> list[tuple[str, list[Curve]]]:
        """The unweighted loss terms of the distillation of every setting's first run."""
        told = []
        for group in self.groups:
            entries = [entry for entry in group[0].metrics if entry["phase"] == "distil"]
            names = dict.fromkeys(name for entry in entries for name in entry["terms"])
            curves = [
                Curve(_SERIES[place % len(_SERIES)], name, _points(entries, name))
                for place, name in enumerate(names)
            ]
            seed = f", seed {group[0].seed}" if len(self.runs) > 1 else ""
            if curves:
                told.append((f"{self.label(group)}{seed}", curves))
        return told

    def _phase(self, run: ToldRun, phase: str) -> tuple[str, str]:
        """Colour and name of a training."""
        if phase.startswith("teacher"):
            return "teacher", "teacher" if len(run.teachers()) < 2 else phase
        if phase == "alone" or run.is_alone:
            return "alone", "student alone"
        group = self.group_of(run)
        return self.series(group), f"student by {self.label(group)}"


def _by(values: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    """Values by a key, both in the order in which they come."""
    found: dict[Any, list[Any]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return found


def _different(held: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Networks by the seed of their run, those left out that are there with equal score and seed."""
    return list({(seed, about.get("score")): about for seed, about in held}.values())


def _model(series: str, name: str, held: Sequence[Mapping[str, Any]], *, file: bool = False) -> Model:
    """A row over several runs; a teacher that all of them share counts once."""
    scores = [float(about["score"]) for about in held if about.get("score") is not None]
    if series == "teacher" and len(set(scores)) == 1:
        scores = scores[:1]
    first = held[0]
    return Model(
        series=series,
        name=name,
        scores=scores,
        parameters=first.get("parameters"),
        bytes=first.get("bytes"),
        latency=[about["latency_seconds"] for about in held if about.get("latency_seconds")],
        note=first.get("note", "") if len(held) == 1 else "",
        file=file,
        last=[float(about["last"]["score"]) for about in held if about.get("last")],
    )


def _teacher_name(run: ToldRun, key: str) -> str:
    recipe = run.run["recipe"]
    given = recipe.get("teachers") or [recipe.get("teacher", {})]
    number = int(key.partition(" ")[2] or 0)
    model = given[number].get("model", "") if number < len(given) else ""
    return f"{key} {model}".strip()


def _students(run: ToldRun) -> str:
    recipe = run.run["recipe"]
    given = recipe.get("students") or [recipe.get("student", {})]
    return ", ".join(dict.fromkeys(each.get("model", "student") for each in given))


def _taught_by(run: ToldRun) -> str:
    names = [_teacher_name(run, key).partition(" ")[2] for key, _ in run.teachers()]
    return f", taught by {', '.join(dict.fromkeys(name for name in names if name))}" if any(names) else ""


def _same_data(one: ToldRun, other: ToldRun) -> bool:
    return bool(one.run["data"]["fingerprint"] == other.run["data"]["fingerprint"])


def _over_samples(run: ToldRun) -> Interval | None:
    """The interval that the samples of one run leave open; None where its answers were not kept."""
    if run.found is None or not {"alone", "distilled"} <= set(run.found.networks):
        return None
    first, second = (run.found.networks[key].predicted for key in ("alone", "distilled"))
    return Interval(*paired_difference(run.found.target, first, second))


def _chosen(run: ToldRun, phase: str) -> float | None:
    found: Mapping[str, Any] = next((each for each in run.run["phases"] if each["name"] == phase), {})
    return found.get("chosen_epoch")


def _points(entries: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (place + 1.0, float(entry["terms"][name]))
        for place, entry in enumerate(entries)
        if name in entry["terms"]
    ]
