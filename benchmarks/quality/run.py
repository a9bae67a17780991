"""Every method against the plain student and plain KD on one budget; goes on where it was stopped.

    python -m benchmarks.quality.run                  Fashion-MNIST, three seeds
    python -m benchmarks.quality.run --only kd --seeds 1
    python -m benchmarks.quality.run --data cifar100-sheets --data-root DIR --teacher-weights FILE

Results: benchmarks/results/quality_DATA.json, written after each cell. A cell is run again when its settings
change, and never otherwise: remove the file to measure anew. docs/results.md follows the file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.quality import cells, page
from benchmarks.quality.cells import Cell, Data
from benchmarks.quality.settings import BENCHMARKS, Benchmark, Row, rows
from benchmarks.quality.store import Store
from limbeck.errors import LimbeckError, RequestError, nearest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
#: Weights of teachers that were trained here; not under version control.
WORK = ROOT / "runs" / "quality"


def _print(line: str) -> None:
    print(line, flush=True)  # a log is read while it grows


def run(
    benchmark: Benchmark,
    *,
    root: Path | None = None,
    num_seeds: int = 3,
    only: Sequence[str] = (),
    teacher_weights: Path | None = None,
    results: Path = RESULTS,
    work: Path = WORK,
    say: Callable[[str], None] = _print,
    after: Callable[[], object] = lambda: None,
) -> Path:
    """Runs the cells that are missing.

    Args:
        benchmark: the comparison.
        root: folder of the data, see `load_source`.
        num_seeds: 0, 1, ..., this many.
        only: names of lines of the table; all unless given.
        teacher_weights: of a comparison whose teacher is not trained here.
        results: folder of the result file.
        work: folder of teachers that are trained here.
        say: gets a line now and then.
        after: called after each cell, when the file is written.

    Returns:
        The result file.
    """
    table = rows()
    _check_teacher(benchmark, teacher_weights)
    _check_names(only, [row.name for row in table])
    data = cells.read(benchmark, root)
    every = [
        Cell(labels, row, seed)
        for seed in range(num_seeds)
        for labels in benchmark.labels
        for row in table
        if labels is not None or not row.few
    ]
    store = Store(results / f"quality_{benchmark.name}.json", about(benchmark, data))
    _forget(store, benchmark, data, table, say)
    wanted = [cell for cell in every if not only or cell.row.name in only]
    teacher = _Teacher(benchmark, data, store, teacher_weights, work, say)
    if any(cells.needs_teacher(cell) and not store.has(cells.key(benchmark, data, cell)) for cell in wanted):
        teacher.network()  # first: new weights may make further cells stale
        after()
    for number, cell in enumerate(wanted, 1):
        if store.has(cells.key(benchmark, data, cell)):
            continue
        asks = cells.needs_teacher(cell)
        made = cells.train(benchmark, data, cell, teacher.network() if asks else None)
        store.add({**made, "teacher": teacher.digest if asks else None})
        after()
        say(f"{time.strftime('%H:%M')} {_line(made)}  ({number} of {len(wanted)})")
    return store.file


def about(benchmark: Benchmark, data: Data) -> dict[str, Any]:
    """What the page says of a comparison beside its cells."""
    parts = {"train": data.train, "choosing": data.choosing, "validation": data.validation, "test": data.test}
    student = cells.network(benchmark, data, benchmark.student, 0)
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "samples": {name: len(part) for name, part in parts.items()},
        "classes": data.num_classes,
        "augment": list(benchmark.augment),
        "networks": {"teacher": benchmark.teacher, "student": benchmark.student},
        "student_parameters": cells.count(student),
        "budget": benchmark.budget.model_dump(),
    }


class _Teacher:
    """The teacher of a comparison, trained or read when it is first asked for."""

    def __init__(
        self,
        benchmark: Benchmark,
        data: Data,
        store: Store,
        weights: Path | None,
        work: Path,
        say: Callable[[str], None],
    ) -> None:
        self.benchmark, self.data, self.store, self.say = benchmark, data, store, say
        self.given = weights is not None
        self.file = weights or work / benchmark.name / "teacher.safetensors"
        self._network: nn.Module | None = None

    @property
    def digest(self) -> str:
        """Of the weights in use."""
        assert self.store.teacher is not None
        return str(self.store.teacher["digest"])

    def network(self) -> nn.Module:
        """The network with its weights; what is stored of another one is replaced."""
        if self._network is None:
            if not self._is_stored():
                self.say(f"teacher {self.benchmark.teacher} ...")
                make = cells.given_teacher if self.given else cells.train_teacher
                made = make(self.benchmark, self.data, self.file)
                gone = self.store.set_teacher(made)
                self.say(f"teacher: {_percent(made['scores'])}, {made['seconds']:.0f} s")
                if gone:
                    self.say(f"{gone} cells learned from another teacher and are run again")
            self._network = cells.network(self.benchmark, self.data, self.benchmark.teacher, 0, self.file)
        return self._network

    def _is_stored(self) -> bool:
        known = self.store.teacher
        return (
            known is not None
            and known["key"] == cells.teacher_key(self.benchmark, self.data)
            and self.file.is_file()
            and known["digest"] == cells.digest(self.file)
        )


def _forget(
    store: Store, benchmark: Benchmark, data: Data, table: Sequence[Row], say: Callable[[str], None]
) -> None:
    """Forgets cells whose settings have changed, or whose method is gone; other seeds stay."""
    by_name = {row.name: row for row in table}
    gone = store.keep(
        cells.key(benchmark, data, Cell(stored["labels"], by_name[stored["method"]], stored["seed"]))
        for stored in store.cells
        if stored["method"] in by_name
    )
    if gone:
        say(f"{gone} stored cells have other settings than now and are run again")


def _check_teacher(benchmark: Benchmark, weights: Path | None) -> None:
    if benchmark.teacher_budget is None and weights is None:
        raise RequestError(
            f"the teacher of {benchmark.name}, {benchmark.teacher}, is not trained here",
            fix="--teacher-weights FILE.safetensors",
        )
    if benchmark.teacher_budget is not None and weights is not None:
        raise RequestError(
            f"the teacher of {benchmark.name} is trained here", fix="leave --teacher-weights out"
        )


def _check_names(only: Sequence[str], names: Sequence[str]) -> None:
    for name in only:
        if name not in names:
            raise RequestError(
                f"--only {name}: there is no such line of the table",
                near=nearest(name, names) or list(names),
                fix="a name of the table",
            )


def _line(made: dict[str, Any]) -> str:
    labels = "all labels" if made["labels"] is None else f"{made['labels']:,} labels"
    scores = _percent(made["scores"]["chosen"])
    spent = f"{made['seconds']:.0f} s, {made['processor_seconds']:.0f} s of the processor"
    return f"{labels:12} {made['method']:16} seed {made['seed']}  {scores}  {spent}"


def _percent(scores: dict[str, float]) -> str:
    return f"test {100 * scores['test']:.2f} %, validation {100 * scores['validation']:.2f} %"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="every method against the plain student and kd, on one budget"
    )
    parser.add_argument(
        "--data", choices=sorted(BENCHMARKS), default="fashion-mnist", help="which comparison"
    )
    parser.add_argument(
        "--data-root", type=Path, help="folder of the data; else LIMBECK_DATA, or its usual place"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0; 3 unless given")
    parser.add_argument(
        "--only", action="append", default=[], metavar="METHOD", help="this line of the table alone"
    )
    parser.add_argument("--teacher-weights", type=Path, help="of a teacher that is not trained here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    given = _parse(arguments)
    try:
        run(
            BENCHMARKS[given.data],
            root=given.data_root,
            num_seeds=given.seeds,
            only=given.only,
            teacher_weights=given.teacher_weights,
            after=page.write,  # so that page and results agree wherever the run is stopped
        )
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on after the last finished cell", file=sys.stderr)
        return 130
    print(f"written: {page.write().relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
