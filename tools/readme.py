"""Run the examples in Markdown files, so that what is printed there works.

    python -m tools.readme                      # README.md, docs/**/*.md, examples/*.py
    python -m tools.readme docs/start.md        # these only

Every file is run in an empty folder of its own, its blocks from top to bottom, a file a processor core:

- ```python   runs; all blocks of a file share their names
- ```bash     runs by `bash -euo pipefail`
- ```toml NAME (or any language with a file name behind it) is written to the file NAME
- anything else, as ```console or ```text, is only shown

A block is left out when the line before it says why: `<!-- not run: needs your own pictures -->`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
NOT_RUN = re.compile(r"\s*<!-- not run: .+ -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is written to, its text and first line."""

    language: str
    target: str
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text, less those marked as not run.

    Raises:
        ValueError: a fence is not closed.
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        number += 1
        if not opened:
            continue
        first, indent, ticks = number, opened["indent"], opened["ticks"]
        while number < len(lines) and lines[number].strip() != ticks:
            number += 1
        if number == len(lines):
            raise ValueError(f"line {first}: a block that is not closed")
        body = "\n".join(line.removeprefix(indent) for line in lines[first:number]) + "\n"
        language, _, target = opened["info"].strip().partition(" ")
        number += 1
        if not (first > 1 and NOT_RUN.match(lines[first - 2])):
            yield Block(language, target.strip(), body, first + 1)


def run_markdown(path: Path) -> int:
    """Run the blocks of a file in the current folder; returns how many were run."""
    names: dict[str, object] = {"__name__": "__main__"}
    count = 0
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.target:
            Path(block.target).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # Empty lines before the code: a traceback then names the line of the Markdown file.
            code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
            exec(code, names)
            count += 1
        elif block.language == "bash":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], check=False)
            if done.returncode != 0:
                sys.exit(f"{path}:{block.line}: exit code {done.returncode} of\n{block.text}")
            count += 1
    return count


def run_isolated(path: Path) -> bool:
    """Run one file by a fresh interpreter in an empty folder, and say how it went."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, str(path)]
    if path.suffix == ".md":
        command = [sys.executable, str(Path(__file__).resolve()), "--here", str(path)]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    passed = done.returncode == 0
    said = f"{'passed' if passed else 'FAILED'} {path.relative_to(ROOT)} ({time.monotonic() - start:.1f} s)"
    print(said if passed else f"{done.stdout}\n{said}", flush=True)  # in one piece: others print too
    return passed


def default_files() -> list[Path]:
    """README, all guides that hold something to run, and all examples."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    runnable = [
        page
        for page in pages
        if any(b.language in ("python", "bash") and not b.target for b in blocks(page.read_text("utf-8")))
    ]
    return [*runnable, *sorted((ROOT / "examples").glob("*.py"))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run files; the exit code is 1 if one of them failed."""
    parser = argparse.ArgumentParser(description="run the examples in Markdown files and in examples/")
    parser.add_argument("files", nargs="*", type=Path, help="README.md, docs and examples unless given")
    parser.add_argument("--here", action="store_true", help="run a file in this process and folder")
    given = parser.parse_args(arguments)
    if given.here:
        for path in given.files:
            print(f"{run_markdown(path)} blocks run")
        return
    files = [path.resolve() for path in given.files] or default_files()
    with ThreadPoolExecutor(os.cpu_count()) as several:  # each waits for a process of its own
        failed = list(several.map(run_isolated, files)).count(False)
    print(f"{len(files) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
