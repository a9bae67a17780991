"""docs/speed.md from the stored results: every figure on it comes from a file of benchmarks/results."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"

_HEAD = """# Speed: what a step of distillation costs

<!-- written by `python -m tools.docs` from benchmarks/results; do not edit -->

Ratios, measured side by side in one run; medians after a warm-up. Steps and scores of a small pair on two
processor cores say how the ways compare, not how fast your machine is: the commands repeat them there.
"""

#: What the rows of `benchmarks.speed.kd_step` are, in their order.
_ROWS = {
    "plain": "the student by labels alone, float32",
    "usual_live": "distillation as it is mostly written: live float32 teacher",
    "usual_live_bf16": "the same, bfloat16 autocast and channels_last",
    "torchdistill": "torchdistill, float32",
    "torchdistill_bf16": "torchdistill, bfloat16 autocast and channels_last",
    "cached_fp32": "limbeck, stored answers, float32",
    "default": "limbeck as it decides by itself",
    "default_compiled": "the same, the student compiled",
}


def page(results: Path = RESULTS) -> str:
    """The page from the results that are there."""
    found = {
        name: json.loads(path.read_text("utf-8"))
        for name in ("kd_step", "cache", "end_to_end", "precision", "defaults", "quickstart")
        for path in [results / f"{name}.json"]
        if path.is_file()
    }
    parts = [_HEAD]
    for name, write in (
        ("kd_step", _steps),
        ("end_to_end", _wall),
        ("cache", _cache),
        ("precision", _precision),
        ("defaults", _defaults),
        ("quickstart", _quickstart),
    ):
        if name in found:
            parts.append("\n".join(write(found[name])) + "\n")
    return "\n".join(parts)


def _steps(found: Mapping[str, Any]) -> Iterable[str]:
    pairs = [found, *[pair for pair in found.get("pairs", {}).values() if pair["pair"] != found["pair"]]]
    yield from ("## A step", "", _command(found), "")
    yield _paragraph(
        f"Time of a training step relative to the plain student's, batch {found['settings']['batch']}, "
        f"{found['settings']['threads']} threads, {_machine(found)}. "
        "In brackets the middle half of the rounds."
    )
    yield ""
    yield f"| | {' | '.join(pair['pair'] for pair in pairs)} |"
    yield f"|---|{'---:|' * len(pairs)}"
    for row, words in _ROWS.items():
        if row in found["ratio_to_plain_fp32"]:
            yield f"| {words} | {' | '.join(_ratio(pair, row) for pair in pairs)} |"
    yield ""
    for pair in pairs:
        by = pair["usual_live_by_default"]
        chosen = f"{pair['default']['precision']}, {pair['default']['layout']}"
        yield f"- {pair['pair']}: the usual step takes {by:.2f} times as long as the default one ({chosen})."


def _ratio(pair: Mapping[str, Any], row: str) -> str:
    low, high = pair["spread"][row]
    ratio = pair["ratio_to_plain_fp32"][row]
    return f"{ratio:.2f}" if row == "plain" else f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _wall(found: Mapping[str, Any]) -> Iterable[str]:
    settings = found["settings"]
    yield from ("## A whole training", "", _command(found), "")
    yield _paragraph(
        f"{settings['pair']}, CIFAR-100, the first {settings['samples']:,} training pictures, "
        f"{settings['epochs']} epochs, batch {settings['batch']}, {settings['threads']} threads. Scoring "
        "is not counted; the first run of limbeck includes the time in which the teacher fills the cache."
    )
    yield from (
        "",
        "| | seconds | test accuracy | step of the plain student before it |",
        "|---|---:|---:|---:|",
    )
    pace = {cell["row"]: cell["pace_seconds"] for cell in found["cells"]}
    for row, values in found["rows"].items():
        words = {"limbeck_first": "limbeck, first run", "limbeck_later": "limbeck, later runs"}.get(row, row)
        shown = f"{values['seconds']:.0f} | {values['accuracy']:.1%} | {1000 * pace[row]:.0f} ms"
        yield f"| {words.replace('usual_live', 'the usual loop')} | {shown} |"


def _cache(found: Mapping[str, Any]) -> Iterable[str]:
    yield from ("## The cache", "", _command(found), "")
    if "writing" in found:
        share = found["writing"]["share_of_bare"]
        yield f"- Writing: {share:.1%} of the bare teacher's rate (ResNet-56, batch 128)."
    if "reading" in found:
        reading = found["reading"]
        share = reading["share_of_step"]["cached_fp32"]
        taken = f"{reading['milliseconds']:.2f} ms for a batch of {reading['batch']}"
        yield f"- Reading: {taken}, {share:.2%} of a step."
    if "bytes" in found:
        sizes = ", ".join(f"{name.replace(', ', ' ')} {size:,}" for name, size in _sizes(found["bytes"]))
        yield f"- Bytes of an answer with 1,000 classes, checksum included: {sizes}."
    if "memory" in found:
        growth = found["memory"]["growth_at_10_x"]
        said = ", ".join(f"{name} {value:+.0f} MB" for name, value in growth.items())
        yield f"- Memory while reading, with ten times as many records: {said}."


def _precision(found: Mapping[str, Any]) -> Iterable[str]:
    yield from ("## Precision and layout by network", "", _command(found), "")
    yield _paragraph(
        f"A step relative to float32, {found['settings']['threads']} threads, {_machine(found)}. Ordered by "
        "their operations for each number that the layers write, by which limbeck decides."
    )
    yield from (
        "",
        "| network | operations | channels_last | bf16 | both | both, forward alone |",
        "|---|---:|---:|---:|---:|---:|",
    )
    for name, network in sorted(found["networks"].items(), key=lambda item: item[1]["operations"]):
        train, infer = network["train"]["ratio"], network["infer"]["ratio"]
        ratios = [
            train["channels_last"],
            train["bf16"],
            train["bf16_channels_last"],
            infer["bf16_channels_last"],
        ]
        shown = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        yield f"| {name} | {network['operations']:.0f} | {shown} |"


def _sizes(found: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    return [(name, round(value)) for name, value in found.items()]


def _defaults(found: Mapping[str, Any]) -> Iterable[str]:
    settings = found["settings"]
    words = {
        "usual": "float32, a new view every epoch, live teacher",
        "views": "float32, the default's views, stored answers",
        "default": "the default: its views, stored answers, precision and layout",
        "plain": "without teacher, as `usual`",
        "plain default": "without teacher, as `default`",
    }
    yield from ("## What the defaults cost in accuracy", "", _command(found), "")
    yield _paragraph(
        f"ResNet-56 -> ResNet-20 by `kd` on the first {settings['samples']:,} training pictures of "
        f"CIFAR-100, {settings['epochs']} epochs; accuracy of the last epoch on "
        f"{settings['test_samples']:,} test "
        "pictures, mean and standard deviation over seeds, and the paired difference to the usual way."
    )
    yield _paragraph(
        "Seconds are the median over seeds; in the first of them the answers were written, which is part of "
        "its time."
    )
    head = "| | test accuracy | difference, points | seconds | seeds |"
    yield from ("", head, "|---|---:|---:|---:|---:|")
    for line, values in found["summary"].items():
        spread = "" if values["deviation"] is None else f" ({values['deviation']:.2f})"
        score = f"{values['mean']:.2f}{spread}"
        seconds = statistics.median(cell["seconds"] for cell in found["cells"] if cell["line"] == line)
        against = f"{values['difference']:+.2f} | {seconds:.0f}"
        yield f"| {words[line]} | {score} | {against} | {values['seeds']} |"


def _quickstart(found: Mapping[str, Any]) -> Iterable[str]:
    onnx, int8, report = found["onnx"], found["int8"], found["report"]
    lost = 100 * (int8["validation_before"] - int8["validation"])
    yield from ("## The quickstart", "", _command(found), "")
    yield f"- `limbeck check quickstart`: {found['check_seconds']:.0f} seconds, {_machine(found)}."
    yield f"- `limbeck distill quickstart`, with files and page: {found['distill_seconds']:.0f} seconds."
    samples = f"{onnx['compared_samples']:,} samples"
    yield f"- ONNX against PyTorch: {onnx['difference']:.0e} at most, over {samples}."
    yield (
        f"- int8: {lost:+.1f} points lost on validation data, {int8['agreement']:.1%} of the answers are the "
        f"same, {int8['speed']:.1f} times as fast as float32."
    )
    opened = "" if report["milliseconds"] is None else f", open in {report['milliseconds']:.0f} ms"
    yield f"- `report.html`: {report['bytes'] / 1e3:.0f} kB{opened}."


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 110)


def _command(found: Mapping[str, Any]) -> str:
    return f"`{found['command']}`"


def _machine(found: Mapping[str, Any]) -> str:
    versions = found.get("versions") or found["machine"]["versions"]
    return f"{found['machine']['processor']}, torch {versions['torch']}"


def ratio_table(
    results: Path = RESULTS, rows: Sequence[str] = ("usual_live", "torchdistill", "default")
) -> str:
    """The few lines that README shows."""
    found = json.loads((results / "kd_step.json").read_text("utf-8"))
    lines = [f"| one training step, {found['pair']} | relative to the plain student |", "| --- | ---: |"]
    lines += [f"| {_ROWS[row]} | {found['ratio_to_plain_fp32'][row]:.2f} |" for row in ("plain", *rows)]
    return "\n".join(lines)
