"""Planted faults: what is done to a recipe that is right, which code is found, at which line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from limbeck import check, write_cache
from limbeck._check.check import Check
from limbeck._run.screen import silent
from tests.check.planted import RECIPE, saved, weights

#: Text that is replaced, and by what.
Edit = tuple[str, str]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: of the test.
        code: that is found; no other error is.
        line: what stands in the line that is named.
        edits: of the recipe.
        files: makes files first; by default the weights of a good teacher.
        fix: stands in the fix.
        said: stands in the message or its details.
    """

    name: str
    code: str
    line: str
    edits: Sequence[Edit] = ()
    files: Callable[[Path], None] = saved
    fix: str = ""
    said: str = ""


def source(name: str) -> Edit:
    return "planted:pictures", f"planted:{name}"


def model(name: str) -> list[Edit]:
    return [
        ('model = "tests.check.planted:levels"\nweights = "teacher.safetensors"', f'model = "{PLACE}{name}"'),
        ('model = "tests.check.planted:levels"', f'model = "{PLACE}{name}"'),
    ]


PLACE = "tests.check.planted:"
STUDENT = '[student]\nmodel = "tests.check.planted:levels"'
KD = 'name = "kd"\ntemperature = 4.0'


def layers(student: str, teacher: str) -> list[Edit]:
    taps = f'name = "semckd"\ntaps = {{ student = ["{student}"], teacher = ["{teacher}"] }}'
    return [*model("maps"), (KD, taps)]


def state_of(**options: Any) -> Callable[[Path], None]:
    return lambda folder: saved(folder, state=weights(**options))


def permuted(folder: Path) -> None:
    saved(folder, state={name: value[[1, 2, 3, 0]] for name, value in weights().items()})


def blind(folder: Path) -> None:
    saved(folder, state={name: value[[0, 0, 0, 0]] for name, value in weights().items()})


def two_exchanged(folder: Path) -> None:
    saved(folder, state={name: value[[0, 1, 3, 2]] for name, value in weights().items()})


def poor_teacher(folder: Path) -> None:
    state = weights()
    state["fc.bias"] = state["fc.bias"] - torch.tensor([0.0, 200.0, 0.0, 0.0])
    saved(folder, state=state)
    saved(folder, "student")


def sharp(folder: Path) -> None:
    saved(folder, state=weights(scale=5000.0))


def flipped_cache(folder: Path) -> None:
    saved(folder)
    cached = _cached()
    shard = max((file for file in cached.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def foreign_cache(folder: Path) -> None:
    saved(folder, state=weights(scale=50.0))
    other = _cached()
    content = other.rename(folder / "other")
    saved(folder)
    own = _cached()
    shutil.rmtree(own)
    content.rename(own)


def _cached() -> Path:
    done = write_cache("mine.toml", screen=silent())
    return Path(done.folders[0]).absolute()


def damaged_pictures(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(40):
        path = folder / "data" / "ab"[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        if number in (4, 11):
            path.write_bytes(path.read_bytes()[:-40])


UNTRAINED = ('weights = "teacher.safetensors"', 'weights = "train"')

FAULTS = [
    Fault("layer-that-is-not-there", "K101", "taps =", layers("secnd", "second"), fix='"second"'),
    Fault("layer-of-the-teacher", "K101", "taps =", layers("second", "layer9"), said="no layer 'layer9'"),
    Fault("layer-never-called", "K101", "taps =", layers("idle", "second"), said="never called"),
    Fault("shapes-without-adaptor", "K102", "taps =", layers("head", "second"), said="'head' gives"),
    Fault("number-of-classes", "K103", "weights =", files=state_of(classes=6), fix="6 outputs"),
    Fault("teacher-at-chance", "K104", "weights =", files=blind, fix="accept_chance"),
    Fault("classes-permuted", "K105", "weights =", files=permuted, said="reaches 100.0 %"),
    Fault("two-classes-exchanged", "K105", "weights =", files=two_exchanged, said="'3' for '2'"),
    Fault(
        "normalize-of-imagenet",
        "K106",
        'normalize = "none"',
        files=state_of(statistics="imagenet"),
        fix='normalize = "imagenet" in [teacher], line 7',
    ),
    Fault(
        "normalize-left-out",
        "K106",
        "[teacher]",
        [('weights = "teacher.safetensors"\nnormalize = "none"', 'weights = "teacher.safetensors"')],
        fix='normalize = "none" in [teacher]',
    ),
    Fault(
        "teacher-worse-than-student",
        "K201",
        'weights = "teacher.safetensors"',
        [(STUDENT, f'{STUDENT}\nweights = "student.safetensors"')],
        poor_teacher,
        said="75.0 % against 100.0 %",
    ),
    Fault(
        "teacher-is-student",
        "K107",
        'weights = "teacher.safetensors"',
        [(STUDENT, f'{STUDENT}\nweights = "teacher.safetensors"')],
    ),
    Fault("student-larger", "K206", "broader", [(STUDENT, f'[student]\nmodel = "{PLACE}broader"')]),
    Fault(
        "terms-far-apart",
        "K207",
        "hard_weight",
        [("temperature = 4.0", "temperature = 4.0\nhard_weight = 1e-6\nsoft_weight = 1.0")],
        fix="hard_weight =",
    ),
    Fault("temperature-flattens", "K203", "temperature = 1e4", [("= 4.0", "= 1e4")], fix="temperature = 4.0"),
    Fault("temperature-saturates", "K203", "temperature = 0.01", [("= 4.0", "= 0.01")], sharp),
    Fault("train-in-validation", "K108", "source =", [source("leaky")], said="10 samples of validation"),
    Fault("train-in-test", "K108", "source =", [source("leaky_test")], said="3 samples of test"),
    Fault("one-sample-in-two-splits", "K202", "source =", [source("leaky_a_little")], said="1 sample of"),
    Fault("class-absent", "K209", "source =", [source("without_a_class")], said="class '2'"),
    Fault("generator-of-its-own", "K208", "source =", [source("restless"), UNTRAINED]),
    Fault(
        "unreadable-pictures",
        "K114",
        "source =",
        [('"tests.check.planted:pictures"', '"imagefolder:data"'), UNTRAINED],
        damaged_pictures,
        fix="skip_unreadable",
        said="11.jpg",
    ),
    Fault("missing-package", "K109", "to =", [("[export]", '[log]\nto = ["wandb"]\n[export]')]),
    Fault("cache-damaged", "K110", "[cache]", [("[train]", "[cache]\n[train]")], flipped_cache),
    Fault("cache-of-another", "K110", "[cache]", [("[train]", "[cache]\n[train]")], foreign_cache),
    Fault(
        "top-k-keeps-little",
        "K204",
        "top_k",
        [("[train]", "[cache]\ntop_k = 1\n[train]"), ("= 4.0", "= 20.0")],
        state_of(scale=30.0),
    ),
    Fault(
        "decoupled-of-two",
        "K117",
        "variant",
        [source("two_classes"), ("temperature = 4.0", 'variant = "decoupled"'), UNTRAINED],
    ),
    Fault(
        "batch-norm-of-parts",
        "K210",
        "micro_batch",
        [*model("maps"), ("[machine]", "[machine]\nmicro_batch = 4")],
    ),
    Fault(
        "steps-diverge",
        "K116",
        "learning_rate",
        [("batch_size = 16", "batch_size = 16\nlearning_rate = 1e30"), UNTRAINED],
        fix="clip_norm",
    ),
    Fault("no-such-weights", "K100", "weights =", files=lambda folder: None, said="there is no file"),
    Fault(
        "network-for-other-inputs", "K100", "rows_only", [(STUDENT, f'[student]\nmodel = "{PLACE}rows_only"')]
    ),
]


def checked(fault: Fault | str, folder: Path) -> Check:
    """Plants a fault, or the one of this name, into the recipe in a folder, which is the working one."""
    if isinstance(fault, str):
        fault = next(each for each in FAULTS if each.name == fault)
    recipe = RECIPE
    for old, new in fault.edits:
        assert old in recipe
        recipe = recipe.replace(old, new, 1)
    Path("mine.toml").write_text(recipe, encoding="ascii")
    fault.files(folder)
    return check("mine.toml", screen=silent())
