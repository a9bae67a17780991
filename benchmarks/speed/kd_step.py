"""What a step of distillation costs, against a step of the plain student in float32.

    python -m benchmarks.speed.kd_step --json benchmarks/results/kd_step.json

Two pairs of networks on 32x32 pictures, batch 64, 100 classes, SGD: ResNet-56 -> ResNet-20, and
ResNet-56 -> ShuffleNetV2, a student that gains nothing by bfloat16. One run, a step of each in turn, in
another order every round; medians after a warm-up. Rows:

    plain             the student by labels alone, float32, a loop written by hand
    usual_live        distillation as everyone writes it: the teacher in full at each step, float32
    usual_live_bf16   the same with bfloat16 autocast of both networks and channels_last
    default           limbeck as it decides by itself: teacher's answers from a cache on disk, precision and
                      layout by rule
    cached_fp32       limbeck, from the cache, float32 and contiguous
    torchdistill      torchdistill from PyPI, float32; `torchdistill_bf16`: with autocast and channels_last
    default_compiled  with --compile: `default` with the student compiled

All read the same batches from memory in the same way, and the reading counts. The cache is filled before.
First losses that differ stop it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.speed import loops, rival
from benchmarks.speed.turns import Told, in_turn, ratios
from limbeck import CachedTeacher
from limbeck._run.machine import facts
from limbeck.data.dataset import ArrayDataset
from limbeck.engine import Machine
from limbeck.models.cifar import cifar_resnet

CLASSES, SIDE = 100, 32
STUDENTS = {"resnet": "ResNet-20", "shufflenet": "ShuffleNetV2 x1.0"}
#: Low: a teacher with random weights answers with large logits.
RATE = 1e-3
ROWS = ("plain", "usual_live", "usual_live_bf16", "default", "cached_fp32")
RIVAL = ("torchdistill", "torchdistill_bf16")
FP32 = ("usual_live", "cached_fp32", "torchdistill")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        rounds: that count.
        warmup: rounds before.
        samples: pictures.
        teacher: depth of the teacher, 6 n + 2.
        batch: samples a step.
    """

    rounds: int = 60
    warmup: int = 8
    samples: int = 4096
    teacher: int = 56
    batch: int = 64


def student_of(pair: str) -> nn.Module:
    """The student of a pair, with random weights."""
    if pair == "resnet":
        return cifar_resnet(num_classes=CLASSES, depth=20)
    from torchvision.models import shufflenet_v2_x1_0

    network: nn.Module = shufflenet_v2_x1_0(num_classes=CLASSES)
    return network


def course_of(size: Size) -> loops.Course:
    """Random pictures, and enough epochs for all rounds."""
    pixels = torch.randint(0, 256, (size.samples, 3, SIDE, SIDE), dtype=torch.uint8)
    data = ArrayDataset(pixels, torch.randint(0, CLASSES, (size.samples,)))
    epochs = (size.rounds + size.warmup) // (size.samples // size.batch) + 1
    return loops.Course(data, epochs, size.batch, RATE)


@dataclass(frozen=True)
class Row:
    """A row of a pair, as a loop that builds all it needs itself, the same in every process.

    Args:
        name: of the row.
        pair: whose.
        size: how much.
        folder: of the filled cache.
        torchdistill: folder that it is installed in.
        threads: of torch.
    """

    name: str
    pair: str
    size: Size
    folder: Path
    torchdistill: Path
    threads: int

    def __call__(self, told: Told) -> None:
        """Builds the loop and runs it."""
        torch.set_num_threads(self.threads)
        self._loop()(told)

    def _loop(self) -> loops.Loop:
        student, teacher, course = built(self.pair, self.size)
        kind, bf16 = self.name.removesuffix("_bf16"), self.name.endswith("_bf16")
        if kind == "torchdistill":
            rival.version(self.torchdistill)
            return rival.with_torchdistill(student, teacher, course, bf16=bf16)
        if kind in ("plain", "usual_live"):
            return loops.by_hand(student, None if kind == "plain" else teacher, course, bf16=bf16)
        machine = Machine(device="cpu") if kind == "cached_fp32" else loops.by_rule(student, course)[0]
        machine = replace(machine, compile=kind == "default_compiled")
        return loops.with_limbeck(student, teacher, course, self.folder, machine)


def built(pair: str, size: Size) -> tuple[nn.Module, nn.Module, loops.Course]:
    """Student, teacher and course of a pair: the same weights and pictures at every call."""
    torch.manual_seed(0)
    teacher = cifar_resnet(num_classes=CLASSES, depth=size.teacher).eval()
    return student_of(pair), teacher, course_of(size)


def measure(
    pair: str, size: Size, names: Sequence[str] = ROWS, torchdistill: Path = rival.FOLDER
) -> dict[str, Any]:
    """Times rows of a pair.

    Args:
        pair: a key of `STUDENTS`.
        size: how much.
        names: of the rows.
        torchdistill: folder that it is installed in.

    Raises:
        SystemExit: the losses of two rows in float32 differ: not the same maths.
    """
    student, teacher, course = built(pair, size)
    machine, why = loops.by_rule(student, course)
    with tempfile.TemporaryDirectory() as folder:
        CachedTeacher(teacher, folder, course.data).fill([0])
        threads = torch.get_num_threads()
        rows = {name: Row(name, pair, size, Path(folder), torchdistill, threads) for name in names}
        seconds, losses = in_turn(rows, size.rounds, size.warmup)
    values = [losses[name] for name in FP32 if name in losses]
    gap = max(values) / min(values) - 1
    if gap > 1e-4:
        raise SystemExit(f"the first losses differ by {gap:.1e}: not the same maths; {losses}")
    found = ratios(seconds, "plain")
    return {
        "ratio_to_plain_fp32": found["ratio"],
        "seconds": found["seconds"],
        "spread": found["spread"],
        "usual_live_by_default": round(found["seconds"]["usual_live"] / found["seconds"]["default"], 3),
        "pair": f"ResNet-{size.teacher} -> {STUDENTS[pair]}",
        "default": {"precision": machine.precision, "layout": machine.layout, "why": why},
        "first_losses": {name: round(value, 5) for name, value in losses.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.kd_step")
    standard = Size()
    parser.add_argument("--rounds", type=int, default=standard.rounds)
    parser.add_argument("--warmup", type=int, default=standard.warmup)
    parser.add_argument("--samples", type=int, default=standard.samples)
    parser.add_argument("--batch", type=int, default=standard.batch)
    parser.add_argument("--teacher", type=int, default=standard.teacher, help="depth of the teacher, 6 n + 2")
    parser.add_argument("--pairs", nargs="+", choices=sorted(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--threads", type=int, help="default: all that torch takes")
    parser.add_argument("--torchdistill", type=Path, default=rival.FOLDER, help="folder it is installed in")
    parser.add_argument("--compile", action="store_true", help="a further row: the student compiled")
    parser.add_argument("--json", type=Path, help="where the result goes")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    size = Size(given.rounds, given.warmup, given.samples, given.teacher, given.batch)
    version = rival.version(given.torchdistill)
    if version is None:
        print(f"without torchdistill, which is not there; to have its rows: {rival.HOW}", file=sys.stderr)
    names = [*ROWS, *(RIVAL if version else ()), *(["default_compiled"] if given.compile else [])]
    pairs = {}
    for pair in given.pairs:
        print(
            f"{pair}: the cache is filled, then {size.rounds} rounds of {names}", file=sys.stderr, flush=True
        )
        pairs[pair] = measure(pair, size, names, given.torchdistill)
        print(json.dumps(pairs[pair], indent=1), flush=True)
    if given.json:
        found = pairs[given.pairs[0]] | about(size, version) | {"pairs": pairs}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def about(size: Size, torchdistill: str | None) -> dict[str, Any]:
    """Settings, machine and versions of a result."""
    machine = facts()
    versions = machine.pop("versions") | {"torchdistill": torchdistill}
    return {
        "settings": {**vars(size), "classes": CLASSES, "side": SIDE, "threads": torch.get_num_threads()},
        "machine": machine,
        "versions": versions,
        "command": "python -m benchmarks.speed.kd_step --json FILE",
        "torchdistill": rival.HOW,
    }


if __name__ == "__main__":
    sys.exit(main())
