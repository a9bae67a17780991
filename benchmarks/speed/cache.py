"""What the teacher's cache costs: writing, reading, room on disk, memory.

python -m benchmarks.speed.cache --json benchmarks/results/cache.json

writing   samples a second through `CachedTeacher.fill` against the bare forward of the same ResNet-56 on
          the same batches of 128, whose pixels lie ready; the two alternate batch by batch
reading   milliseconds that a batch of 64 answers takes, and its share of limbeck's step with a ResNet-20
          (`cached_fp32` and `default` of kd_step.py); all alternate
bytes     on disk for each sample, of outputs over 1,000 classes
memory    of a fresh process that reads records in random order, from a cache and from one ten times as
          large, in MB: `anonymous` is its own, `resident` all that it holds
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed import kd_step, rival
from benchmarks.speed.turns import REST, Told, Turn
from limbeck import CachedTeacher
from limbeck._run.machine import facts
from limbeck.cache import BATCH, Store
from limbeck.data.dataset import ArrayDataset, Dataset, Indices, digest, positions
from limbeck.models.cifar import cifar_resnet

PARTS = ("writing", "reading", "bytes", "memory")
STORES = {
    "float32": Store(),
    "float16": Store("float16"),
    "float32, top-k 64": Store(top_k=64),
    "float16, top-k 64": Store("float16", top_k=64),
}
_WIDE, _MANY = 8, 1000  # inputs and classes where only the size of an answer matters
_STATUS = {"anonymous": "RssAnon", "resident": "VmRSS"}


# -- writing ---------------------------------------------------------------------------------------------


def writing(samples: int, rounds: int, depth: int) -> dict[str, Any]:
    """Rates of `fill` and of the bare forward.

    Args:
        samples: pictures.
        rounds: each fills a new cache.
        depth: of the teacher, 6 n + 2.
    """
    torch.manual_seed(0)
    teacher = cifar_resnet(num_classes=kd_step.CLASSES, depth=depth).eval()
    pixels = torch.randint(0, 256, (samples, 3, kd_step.SIDE, kd_step.SIDE), dtype=torch.uint8)
    data = ArrayDataset(pixels, torch.randint(0, kd_step.CLASSES, (samples,)))
    with torch.no_grad():
        teacher(data.batch(range(min(BATCH, samples)))["inputs"])  # warm-up
    found = [_one_writing(teacher, data) for _ in range(rounds)]
    rates = {name: round(statistics.median(samples / each[name] for each in found), 1) for name in found[0]}
    shares = [each["bare"] / each["fill"] for each in found]
    return {
        "samples_a_second": rates,
        "share_of_bare": round(statistics.median(shares), 4),
        "share_by_round": [round(share, 4) for share in shares],
        "samples": samples,
    }


def _one_writing(teacher: nn.Module, data: Dataset) -> dict[str, float]:
    """Seconds of both; after each batch that `fill` has written, the bare network takes the same one."""
    bare, aside, before = 0.0, 0.0, 0

    def turn(done: int, of: int) -> None:
        nonlocal bare, aside, before
        begun = time.perf_counter()
        inputs = data.batch(range(before, done))["inputs"]
        before, ready = done, time.perf_counter()
        with torch.no_grad():
            teacher(inputs)
        ended = time.perf_counter()
        bare += ended - ready
        aside += ended - begun

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        CachedTeacher(teacher, Path(folder) / "cache", data).fill([0], progress=turn)
        return {"bare": bare, "fill": time.perf_counter() - begun - aside}


# -- reading ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """Reads answers batch by batch, as a loop of two turns: the batch itself, then its answers.

    Args:
        size: of the course whose batches are answered.
        folder: of the filled cache.
        threads: of torch.
    """

    size: kd_step.Size
    folder: Path
    threads: int

    def __call__(self, told: Told) -> None:
        """Reads until it is ended."""
        torch.set_num_threads(self.threads)
        _, teacher, course = kd_step.built("resnet", self.size)
        cached = CachedTeacher(teacher, self.folder, course.data, write=False)
        for epoch in range(1, course.epochs + 1):
            for (batch,) in course.loader(epoch):
                told.step(0.0)
                cached(batch)
                told.step(0.0)


def reading(size: kd_step.Size) -> dict[str, Any]:
    """Milliseconds of reading a batch of answers, and its share of limbeck's steps."""
    _, teacher, course = kd_step.built("resnet", size)
    taken: dict[str, list[float]] = {"reading": [], "cached_fp32": [], "default": []}
    with tempfile.TemporaryDirectory() as name:
        folder, threads = Path(name) / "cache", torch.get_num_threads()
        CachedTeacher(teacher, folder, course.data).fill([0])
        turns = {"reading": Turn(Reader(size, folder, threads))}
        try:
            for row in ("cached_fp32", "default"):
                turns[row] = Turn(kd_step.Row(row, "resnet", size, folder, rival.FOLDER, threads))
            for number in range(size.warmup + size.rounds):
                for row, turn in turns.items():
                    time.sleep(REST)
                    if row == "reading":
                        turn.take()
                    seconds, _ = turn.take()
                    if number >= size.warmup:
                        taken[row].append(seconds)
        finally:
            for turn in turns.values():
                turn.end()
    medians = {row: statistics.median(values) for row, values in taken.items()}
    steps = [row for row in medians if row != "reading"]
    return {
        "milliseconds": round(medians["reading"] * 1e3, 4),
        "step_milliseconds": {row: round(medians[row] * 1e3, 3) for row in steps},
        "share_of_step": {row: round(medians["reading"] / medians[row], 5) for row in steps},
        "batch": size.batch,
        "rounds": size.rounds,
    }


# -- room and memory -------------------------------------------------------------------------------------


class Drawn(Dataset):
    """Samples that take no memory: a few numbers from their position.

    Args:
        number: of samples.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        """Inputs [B, 8]."""
        index = positions(indices, self.number)
        inputs = torch.sin(index.double()[:, None] * torch.arange(1, _WIDE + 1)).float()
        return {
            "inputs": inputs,
            "targets": index % _MANY,
            "index": index,
            "view": torch.as_tensor(view).expand(len(index)),
        }

    def targets(self) -> Tensor:
        """One class after the other."""
        return torch.arange(self.number) % _MANY

    def fingerprint(self) -> str:
        """Of the number of samples."""
        return digest("drawn", self.number)


def answering(folder: Path, records: int, store: Store | None = None) -> CachedTeacher:
    """A small teacher with 1,000 classes, the same at every call."""
    torch.manual_seed(0)
    return CachedTeacher(nn.Linear(_WIDE, _MANY), folder, Drawn(records), store=store)


def room(records: int) -> dict[str, float]:
    """Bytes on disk for each sample, all files of a cache together."""
    found = {}
    for name, store in STORES.items():
        with tempfile.TemporaryDirectory() as folder:
            answering(Path(folder), records, store).fill([0])
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        found[name] = round(size / records, 2)
    return found


def memory(records: int, reads: int) -> dict[str, Any]:
    """Memory of processes that read caches of `records` and of ten times as many records."""
    found: dict[str, Any] = {}
    for number in (records, 10 * records):
        with tempfile.TemporaryDirectory() as folder:
            answering(Path(folder), number).fill([0])
            command = [sys.executable, "-m", __spec__.name, "--read", folder]
            command += ["--records", str(number), "--reads", str(reads)]
            done = subprocess.run(command, cwd=rival.ROOT, check=True, stdout=subprocess.PIPE, text=True)
            found[f"{number}"] = json.loads(done.stdout)
    small, large = found.values()
    growth = {name: round(large[f"{name}_peak"] - small[f"{name}_peak"], 2) for name in _STATUS}
    return {"by_records": found, "growth_at_10_x": growth}


def read_only(folder: Path, records: int, reads: int) -> dict[str, float]:
    """What a process takes that reads batches of 64 in random order: before the first, and at most; in MB."""
    cached, drawn = answering(folder, records), torch.Generator().manual_seed(0)
    data = Drawn(records)
    before, peak, seconds = resident(), dict.fromkeys(_STATUS, 0.0), []
    for _ in range(reads):
        batch = data.batch(torch.randint(0, records, (64,), generator=drawn))
        begun = time.perf_counter()
        cached(batch)
        seconds.append(time.perf_counter() - begun)
        now = resident()
        peak = {name: max(value, now[name]) for name, value in peak.items()}
    return {
        "cache_mb": round(cached.bytes_of([0]) / 1e6, 1),
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_peak": value for name, value in peak.items()},
        "milliseconds": round(statistics.median(seconds) * 1e3, 3),
    }


def resident() -> dict[str, float]:
    """Memory of this process in MB, as Linux tells it.

    Raises:
        SystemExit: the system has no /proc/self/status.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SystemExit("memory is measured on Linux alone: --parts writing reading bytes") from error
    values = dict(line.split(":", 1) for line in lines)
    return {name: round(int(values[key].split()[0]) * 1024 / 1e6, 2) for name, key in _STATUS.items()}


# -- command line ----------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    given = _parsed(arguments)
    if given.read:
        print(json.dumps(read_only(given.read, given.records, given.reads)))
        return 0
    if given.threads:
        torch.set_num_threads(given.threads)
    size = kd_step.Size(given.steps, samples=given.samples, teacher=given.teacher)
    measures: dict[str, Callable[[], Any]] = {
        "writing": lambda: writing(given.samples, given.rounds, given.teacher),
        "reading": lambda: reading(size),
        "bytes": lambda: room(min(given.records, 8192)),
        "memory": lambda: memory(given.records, given.reads),
    }
    found: dict[str, Any] = {}
    for part in given.parts:
        found[part] = measures[part]()
        print(json.dumps({part: found[part]}, indent=1), flush=True)
    if given.json:
        found["threads"], found["machine"] = torch.get_num_threads(), facts()
        found["command"] = "python -m benchmarks.speed.cache --json FILE"
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.cache")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--samples", type=int, default=8192, help="pictures; writing and reading")
    parser.add_argument("--rounds", type=int, default=3, help="caches that are written")
    parser.add_argument("--steps", type=int, default=100, help="steps that are measured; reading")
    parser.add_argument("--teacher", type=int, default=56, help="depth of the teacher, 6 n + 2")
    parser.add_argument("--records", type=int, default=20_000, help="of the smaller cache; memory")
    parser.add_argument("--reads", type=int, default=1000, help="batches that are read; memory")
    parser.add_argument("--threads", type=int, help="default: all that torch takes")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="where the result goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
