"""docs/results.md from the stored results: every figure on it comes from a file of benchmarks/results.

python -m benchmarks.quality.page            writes it
python -m benchmarks.quality.page --check    says whether it is stale
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"

#: 97.5 % points of Student's t by degrees of freedom; the last also stands for more, on the safe side.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

#: The order of the first lines of a table; the others follow by name.
_FIRST = ("plain", "plain_mixed", "kd")

#: Why a method may lie behind plain KD here; printed where the stored figures say that it does.
REASONS: Mapping[str, str] = {
    "semckd": "labels weigh as much as the teacher (1 to 1; `kd` has 0.1 to 0.9), as in its paper",
    "sskd": "its backbone learns from features alone, a stage after the other; no label and no output of the "
    "teacher reaches it, and a student this much smaller copies features only roughly. `sskd_joint` has the "
    "same terms, but with the labels and in one phase",
    "peer_mutual_kd": "labels weigh as much as the teacher (1 to 1; `kd` has 0.1 to 0.9); its paper leaves "
    "the weights open",
}

_HEAD = """# Results: what distillation gains

<!-- written by `python -m benchmarks.quality.page` from benchmarks/results; do not edit -->

Every method trains the same student from the same start on the same budget: epochs, batches, optimizer and
schedule are equal, only the loss differs. No setting was chosen by a score. The command goes on where it was
stopped:

```console
$ python -m benchmarks.quality.run
```

How to read the tables: accuracy in %, mean over seeds and in brackets the spread (standard deviation of the
sample). A seed sets the student's start, the order of the samples and, where few labels are seen, which; all
seeds share one teacher, so the spread does not hold the teacher's. *chosen* is the epoch with the best score
on the validation pictures that choose, *last* the last epoch; test pictures are read once, after training.
Differences are taken seed by seed, of the chosen epoch on the test pictures, in points. *Processor* is the
processor time of one run in seconds, scoring included.

`plain` is the student without a teacher: where few labels are seen, it takes as many steps as the others, on
batches of labelled samples alone. `plain_mixed` gets the batches of the methods, in which samples without a
label do not count. `sskd_joint` is a variant of `sskd` that was added after the other lines were measured, to
explain where `sskd` lies. A method that trains several students trains each by the budget; the one with the
best score on the pictures that choose is reported."""


_RULE = (
    "Ahead or behind: the 95 % interval of the mean difference (Student's t) leaves out 0; otherwise level."
)


@dataclass(frozen=True)
class Figures:
    """Values of several seeds.

    Args:
        values: by seed.
    """

    values: Mapping[int, float]

    def __str__(self) -> str:
        return self.text("{:.2f}")

    def text(self, form: str) -> str:
        """Mean and spread, or the mean alone of one value, or nothing of none."""
        found = list(self.values.values())
        if not found:
            return ""
        shown = form.format(mean(found))
        return f"{shown} ({stdev(found):.2f})" if len(found) > 1 else shown

    def minus(self, other: Figures) -> Figures:
        """The differences of the seeds that both have."""
        return Figures(
            {seed: value - other.values[seed] for seed, value in self.values.items() if seed in other.values}
        )

    def verdict(self) -> int:
        """As differences: 1 or -1 where the 95 % interval of their mean leaves out 0, else 0."""
        found = list(self.values.values())
        if len(found) < 2:
            return 0
        factor = _STUDENT[min(len(found) - 1, len(_STUDENT)) - 1]
        width = factor * stdev(found) / math.sqrt(len(found))
        return (mean(found) > width) - (mean(found) < -width)


@dataclass(frozen=True)
class Line:
    """The seeds of one method with one number of labels."""

    name: str
    cells: Sequence[Mapping[str, Any]]

    def score(self, which: str, part: str) -> Figures:
        """Accuracy in % of the `last` or the `chosen` epoch on a part of the data."""
        return Figures({cell["seed"]: 100 * cell["scores"][which][part] for cell in self.cells})

    def processor(self) -> str:
        """Mean processor time of a run, seconds."""
        return f"{mean(cell['processor_seconds'] for cell in self.cells):.0f}"


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for result in results:
        parts += _comparison(result)
    return "\n\n".join(parts) + "\n"


def short_table(result: Mapping[str, Any]) -> str:
    """Test accuracy of the chosen epoch, a column a number of labels, the teacher first: for README.md."""
    settings = sorted({cell["labels"] for cell in result["cells"]}, key=lambda n: (n is not None, n))
    tables = [{line.name: line for line in lines_of(result, labels)} for labels in settings]
    head = ["test accuracy", *("all labels" if n is None else f"{n:,} labels" for n in settings)]
    rows = [head, ["---", *["---:"] * len(settings)]]
    if result["teacher"] is not None:
        rows.append(
            ["teacher (all labels)", *[f"{100 * result['teacher']['scores']['test']:.2f}"] * len(settings)]
        )
    for name in dict.fromkeys(name for table in reversed(tables) for name in table):
        scores = [str(table[name].score("chosen", "test")) if name in table else "" for table in tables]
        rows.append([f"`{name}`", *scores])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _comparison(result: Mapping[str, Any]) -> Iterator[str]:
    """Heading, facts, tables and what they mean."""
    yield f"## {result['title']}"
    yield _facts(result)
    settings = sorted(
        {cell["labels"] for cell in result["cells"]}, key=lambda number: (number is not None, number)
    )
    for labels in settings:
        lines = lines_of(result, labels)
        yield f"### {'All labels' if labels is None else f'{labels:,} labels'}"
        yield _table(lines)
        yield _meaning(lines, result["teacher"])
    yield _settings(result)


def lines_of(result: Mapping[str, Any], labels: int | None) -> list[Line]:
    """The lines of a table in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in sorted(result["cells"], key=lambda cell: cell["seed"]):
        if cell["labels"] == labels:
            found.setdefault(cell["method"], []).append(cell)
    names = [*(name for name in _FIRST if name in found), *sorted(set(found) - set(_FIRST))]
    return [Line(name, found[name]) for name in names]


def _table(lines: Sequence[Line]) -> str:
    """Scores, differences to `plain` and `kd`, and cost."""
    by_name = {line.name: line for line in lines}
    head = (
        "method",
        "seeds",
        "test, chosen",
        "test, last",
        "to plain",
        "to kd",
        "validation, chosen",
        "processor",
    )
    rows = [head, ("---", *["---:"] * (len(head) - 1))]
    for line in lines:
        chosen = line.score("chosen", "test")
        differences = [
            chosen.minus(by_name[base].score("chosen", "test")).text("{:+.2f}")
            if base in by_name and base != line.name
            else ""
            for base in ("plain", "kd")
        ]
        rows.append(
            (
                f"`{line.name}`",
                str(len(line.cells)),
                str(chosen),
                str(line.score("last", "test")),
                *differences,
                str(line.score("chosen", "validation")),
                line.processor(),
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _meaning(lines: Sequence[Line], teacher: Mapping[str, Any] | None) -> str:
    """What the differences say, a sentence each, by one rule."""
    by_name = {line.name: line for line in lines}
    said = []
    if teacher is not None and "plain" in by_name:
        alone = mean(by_name["plain"].score("chosen", "test").values.values())
        gap = 100 * teacher["scores"]["test"] - alone
        said.append(
            f"- The teacher scores {gap:+.2f} points against `plain`: what there is to learn from it."
        )
    for line in lines:
        base = "plain" if line.name in ("plain_mixed", "kd") else "kd"
        if line.name != "plain" and base in by_name:
            said.append(_sentence(line, by_name[base]))
    return "\n".join([*said, *([""] if said else []), _RULE])


def _sentence(line: Line, base: Line) -> str:
    """Where a line lies, seen from another one."""
    difference = line.score("chosen", "test").minus(base.score("chosen", "test"))
    verdict = difference.verdict()
    where = {1: "ahead of", 0: "level with", -1: "behind"}[verdict]
    reason = REASONS.get(line.name) if verdict < 0 else None
    because = f" A likely reason: {reason}." if reason else ""
    return f"- `{line.name}` is {where} `{base.name}`: {difference.text('{:+.2f}')} points.{because}"


def _facts(result: Mapping[str, Any]) -> str:
    """Data, networks, budget and machines."""
    samples, teacher, budget = result["samples"], result["teacher"], result["budget"]
    names, small = result["networks"], result["student_parameters"]
    augment = f", augmented by {' and '.join(result['augment'])}" if result["augment"] else ""
    lines = [
        f"- data: {samples['train']:,} training pictures (the first of each class), "
        f"{samples['validation']:,} for validation, of which {samples['choosing']:,} choose the epoch, "
        f"{samples['test']:,} for test; {result['classes']} classes{augment}",
        f"- student: `{names['student']}`, {small:,} parameters",
    ]
    if teacher is not None:
        trained = "weights from a file"
        if teacher["budget"] is not None:
            trained = f"trained with all labels for {teacher['budget']['epochs']} epochs, last weights"
        lines.append(
            f"- teacher: `{names['teacher']}`, {teacher['parameters']:,} parameters, "
            f"{teacher['parameters'] / small:.0f} times the student; {trained}; test "
            f"{100 * teacher['scores']['test']:.2f}, validation {100 * teacher['scores']['validation']:.2f}"
        )
    lines.append(
        f"- budget: {budget['epochs']} epochs, batch {budget['batch_size']}, {budget['optimizer']} with a "
        f"learning rate of {budget['learning_rate']:g}, {budget['schedule']}"
    )
    lines += [f"- machine: {text}" for text in _machines(result)]
    return "\n".join(lines)


def _machines(result: Mapping[str, Any]) -> list[str]:
    """Where the cells were computed, each machine once."""
    found = []
    for cell in result["cells"]:
        machine, versions = cell["machine"], cell["versions"]
        place = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['cores']} cores"
        threads = f"{cell['threads']} thread{'s' if cell['threads'] > 1 else ''}"
        found.append(
            f"{place}, {threads}; torch {versions['torch']}, Python {versions['python']}, "
            f"limbeck {versions['limbeck']}"
        )
    return list(dict.fromkeys(found))


def _settings(result: Mapping[str, Any]) -> str:
    """What was set; everything else is the default."""
    found = {cell["method"]: cell["settings"] for cell in result["cells"]}
    set_here = [f"- `{name}`: `{json.dumps(found[name])}`" for name in sorted(found) if found[name]]
    return "\n".join(["Settings that differ from the methods' defaults:", "", *(set_here or ["- none"])])


def stored() -> list[dict[str, Any]]:
    """The result files that hold a cell."""
    read = [
        json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("quality_*.json"), reverse=True)
    ]
    return [result for result in read if result["cells"]]


def write() -> Path:
    """Writes the page and gives its place."""
    PAGE.write_text(page(stored()), encoding="utf-8")
    return PAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(description="write docs/results.md from benchmarks/results")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if it is stale")
    if not parser.parse_args(arguments).check:
        write()
    elif not PAGE.exists() or PAGE.read_text("utf-8") != page(stored()):
        print(f"{PAGE.relative_to(ROOT)} is stale: python -m benchmarks.quality.page", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
