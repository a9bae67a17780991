"""Every method against the plain student and kd on one budget, by `limbeck compare`.

    python -m benchmarks.quality.run                  Fashion-MNIST, 10,000 pictures, three seeds
    python -m benchmarks.quality.run --data fashion-mnist-few
    python -m benchmarks.quality.run --data cifar100 --data-root DIR --teacher-weights FILE.safetensors
    python -m benchmarks.quality.run --only kd --seeds 1 --dry-run

The same command goes on where it was stopped: finished runs in runs/quality-DATA/ are read, not run again;
remove the folder to measure anew. When all lines of the table are done, the leaderboard is stored as
benchmarks/results/quality_DATA.json, and docs/results.md follows it; with `--only` or `--set` nothing is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import limbeck
from benchmarks.quality import page
from benchmarks.quality.settings import BENCHMARKS, Benchmark
from limbeck._compare.comparison import Comparison
from limbeck._run import console
from limbeck.errors import LimbeckError, RequestError, nearest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def run(
    benchmark: Benchmark,
    *,
    root: Path | None = None,
    weights: Path | None = None,
    num_seeds: int | None = None,
    only: Sequence[str] = (),
    changes: Sequence[str] = (),
    jobs: int = 1,
    dry_run: bool = False,
    output: Path | None = None,
    results: Path = RESULTS,
) -> Comparison:
    """Runs what is missing of a comparison, and stores it where it is whole.

    Args:
        benchmark: the comparison.
        root: folder of the data.
        weights: of a teacher that is not trained here.
        num_seeds: other than the benchmark's own.
        only: lines of the table; all unless given.
        changes: as after `--set`, for every line.
        jobs: how many runs at once.
        dry_run: only plans.
        output: folder of the runs; by default runs/quality-NAME.
        results: folder of the result file.

    Raises:
        RequestError: a line that there is not, or weights that are needed and not named.
    """
    _check(benchmark, weights, only)
    recipes = [each for each in benchmark.recipes(root, weights) if not only or each.name in only]
    done = limbeck.compare(
        recipes,
        seeds=num_seeds or benchmark.seeds,
        overrides=changes,
        output=output or Path("runs") / f"quality-{benchmark.name}",
        jobs=jobs,
        dry_run=dry_run,
    )
    if not (dry_run or done.failed or only or changes):
        stored = {**done.to_json(), "name": benchmark.name, "title": benchmark.title}
        results.mkdir(parents=True, exist_ok=True)
        (results / f"quality_{benchmark.name}.json").write_text(
            json.dumps(stored, indent=1, ensure_ascii=True, allow_nan=False) + "\n", encoding="utf-8"
        )
    return done


def _check(benchmark: Benchmark, weights: Path | None, only: Sequence[str]) -> None:
    for name in only:
        if name not in benchmark.methods:
            known = list(benchmark.methods)
            raise RequestError(
                f"--only {name}: there is no such line of the table",
                near=nearest(name, known) or known,
                fix="a name of the table",
            )
    if benchmark.given_teacher and weights is None:
        raise RequestError(
            f"the teacher of {benchmark.name} is not trained here",
            fix="--teacher-weights FILE.safetensors",
        )
    if weights is not None and not benchmark.given_teacher:
        raise RequestError(
            f"the teacher of {benchmark.name} is trained here", fix="leave --teacher-weights out"
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="every method against the plain student and kd, on one budget"
    )
    parser.add_argument(
        "--data", choices=sorted(BENCHMARKS), default="fashion-mnist", help="which comparison"
    )
    parser.add_argument("--data-root", type=Path, help="folder of the data")
    parser.add_argument("--teacher-weights", type=Path, help="of a teacher that is not trained here")
    parser.add_argument("--seeds", type=int, help="how many, from 0; else the comparison's own")
    parser.add_argument("--only", action="append", default=[], metavar="LINE", help="this line alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every line")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--dry-run", action="store_true", help="only print the plan")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    given = _parse(arguments)
    try:
        done = run(
            BENCHMARKS[given.data],
            root=given.data_root,
            weights=given.teacher_weights,
            num_seeds=given.seeds,
            only=given.only,
            changes=given.set,
            jobs=given.jobs,
            dry_run=given.dry_run,
        )
    except LimbeckError as error:
        console.complain(error)
        return error.exit_code
    console.give(done.text())
    if not given.dry_run:
        page.write()
    return 1 if done.failed else 0


if __name__ == "__main__":
    sys.exit(main())
