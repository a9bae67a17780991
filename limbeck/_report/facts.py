"""What a page says, as plain values; whoever fills them in has read a run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck._report.answers import Agreement, Bin, Moved
from limbeck._show.intervals import Interval


@dataclass(frozen=True)
class Number:
    """One of the large figures below the verdict."""

    value: str
    label: str


@dataclass(frozen=True)
class Found:
    """A finding: code, "error" or "warning", its name, this case of it, place, fix, why it matters."""

    code: str
    severity: str
    title: str
    message: str
    where: str | None = None
    fix: str | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Model:
    """A row of the table of models, and a point of the picture.

    Args:
        series: colour and mark: "teacher", "alone", or "s1", "s2" ... for what was distilled.
        name: in the table.
        scores: one a run.
        parameters: of the network; None for a file.
        bytes: of its file.
        latency: medians in seconds, one a run.
        note: behind it.
        file: it is a file made from the network above it.
        last: scores of the weights after the last epoch, one a run; those of `scores` are of the chosen one.
    """

    series: str
    name: str
    scores: Sequence[float]
    parameters: int | None = None
    bytes: int | None = None
    latency: Sequence[float] = ()
    note: str = ""
    file: bool = False
    last: Sequence[float] = ()

    @property
    def score(self) -> float:
        """The mean over the runs."""
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the runs; None for one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def seconds(self) -> float | None:
        """Of a call, the median over the runs; None where it was not timed."""
        return statistics.median(self.latency) if self.latency else None


@dataclass(frozen=True)
class Comparison:
    """How much better one student is than another, trained with the same seeds on the same data.

    Args:
        series: as in `Model`.
        name: what is compared, as "kd against the same student alone".
        differences: of the scores, by the name of the seed.
        interval: of the mean; None where too few seeds tell nothing.
        how: what the interval is about.
    """

    series: str
    name: str
    differences: Sequence[tuple[str, float]]
    interval: Interval | None
    how: str

    @property
    def mean(self) -> float:
        """Of the differences."""
        return statistics.fmean(value for _, value in self.differences)


@dataclass(frozen=True)
class Curve:
    """Values over epochs.

    Args:
        series: colour and mark, as in `Model`.
        name: in the legend; curves of several seeds share it.
        points: epoch from 1, and value.
        chosen: the epoch whose weights were kept.
        seed: of its run, where the page holds several.
    """

    series: str
    name: str
    points: Sequence[tuple[float, float]]
    chosen: float | None = None
    seed: int | None = None

    @property
    def whole_name(self) -> str:
        """Name and seed."""
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"


@dataclass(frozen=True)
class ClassRow:
    """A class: samples of the split, and the share of them that two networks got right."""

    name: str
    samples: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """The second share minus the first."""
        return self.after - self.before


@dataclass(frozen=True)
class Classes:
    """Two networks class by class.

    Args:
        names: of the classes, in the order of the outputs.
        before: what the first network is called.
        after: what the second is called.
        rows: the classes that have samples.
        moved: the confusions that changed most.
        matrix: of the second network, [K][K]; None where there are too many classes to be shown.
    """

    names: Sequence[str]
    before: str
    after: str
    rows: Sequence[ClassRow]
    moved: Sequence[Moved]
    matrix: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True)
class Calibration:
    """How sure a network is and how often it is right: colour, name, expected calibration error, bins."""

    series: str
    name: str
    error: float
    bins: Sequence[Bin]


@dataclass(frozen=True)
class Answer:
    """What a network said of one sample."""

    name: str
    said: str
    confidence: float
    right: bool


@dataclass(frozen=True)
class Picture:
    """A small picture as a data address, with its size in pixels."""

    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Dispute:
    """A sample on which teacher and student differ.

    Args:
        sample: its position in the split.
        true: its class.
        answers: of teacher and student, and of others behind them.
        picture: None for what is no picture.
        text: of the sample, where it is one.
        values: of its columns, where it is a row.
    """

    sample: int
    true: str
    answers: Sequence[Answer]
    picture: Picture | None = None
    text: str | None = None
    values: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class File:
    """A file for the device, in words: one entry a column."""

    cells: Sequence[str]
    verdict: str = ""


@dataclass(frozen=True)
class Split:
    """Where the time of a mean step went: name of the training, seconds by part."""

    name: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Details:
    """What is told of one run.

    Args:
        label: method and seed, where a page holds several runs.
        classes: class by class; None without classes or without answers.
        agreement: of teacher and student.
        calibration: of every network.
        disputes: samples on which teacher and student differ most.
        file_head: names of the columns of `files`.
        files: for the device.
        snippet: how a file is used, as lines of shell or Python.
        phases: name, time, planned time, epochs, in words.
        splits: where the time of a step went.
        costs: further facts of cost, by name.
        command: repeats the run.
        changed: keys that differ from their default, with value and default.
        pairs: layers of teacher and student that were read, as "layer3 > layer2".
        recipe: as it was given.
        facts: versions, machine, data, hashes, by name.
    """

    label: str
    classes: Classes | None = None
    agreement: Agreement | None = None
    calibration: Sequence[Calibration] = ()
    disputes: Sequence[Dispute] = ()
    file_head: Sequence[str] = ()
    files: Sequence[File] = ()
    snippet: str = ""
    phases: Sequence[Sequence[str]] = ()
    splits: Sequence[Split] = ()
    costs: Sequence[tuple[str, str]] = ()
    command: str = ""
    changed: Sequence[tuple[str, str, str]] = ()
    pairs: Sequence[str] = ()
    recipe: str = ""
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: of the page.
        about: what was done, in a line.
        verdict: the result, in a sentence.
        numbers: at most four figures.
        seeds: how many runs stand behind them.
        warnings: what forbids to take the verdict for more than it is.
        findings: of the runs.
        kind: of the task, see `limbeck._show.figures.score`.
        score_name: of the score.
        split: that the scores are of.
        samples: of that split.
        models: the table.
        notes: below the table.
        helped: paired differences.
        validation: scores over epochs.
        terms: unweighted loss terms over epochs, a picture a training.
        runs: what is told of each.
        version: of limbeck.
    """

    title: str
    about: str
    verdict: str
    kind: str
    score_name: str
    split: str
    samples: int
    version: str
    numbers: Sequence[Number] = ()
    seeds: str = ""
    warnings: Sequence[str] = ()
    findings: Sequence[Found] = ()
    models: Sequence[Model] = ()
    notes: Sequence[str] = ()
    helped: Sequence[Comparison] = ()
    validation: Sequence[Curve] = ()
    terms: Sequence[tuple[str, Sequence[Curve]]] = ()
    runs: Sequence[Details] = ()
