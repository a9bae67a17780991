"""What the quickstart comes to: time of `check` and of the run, its files against PyTorch, its page.

    python -m benchmarks.speed.quickstart --json benchmarks/results/quickstart.json

Runs `limbeck check quickstart` and `limbeck distill quickstart` as a user does, each in a process of its own
and in an empty folder, so the teacher's answers are written too. The page is opened from disk in Chromium,
five times, where Chromium and playwright are there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck._run.machine import facts

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def timed(words: Sequence[str], folder: Path) -> float:
    """Seconds of a command of limbeck.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "limbeck", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"limbeck {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - began


def opening(page: Path, times: int = 5) -> float | None:
    """Median milliseconds in which Chromium opens a page from disk; None without it."""
    program = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if program is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        taken = []
        for _ in range(times):
            shown = browser.new_page()
            began = time.perf_counter()
            shown.goto(page.as_uri(), wait_until="load")
            taken.append(time.perf_counter() - began)
            shown.close()
        browser.close()
    return round(1000 * statistics.median(taken), 1)


def measure(changes: Sequence[str] = ()) -> dict[str, Any]:
    """All figures.

    Args:
        changes: as after `--set`, to shorten the run in a test.
    """
    given = [word for change in changes for word in ("--set", change)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check = timed(["check", "quickstart", *given], folder)
        distill = timed(["distill", "quickstart", "-q", *given], folder)
        run = folder / "runs" / "quickstart"
        networks = json.loads((run / "run.json").read_text("utf-8"))["networks"]
        return {
            "check_seconds": round(check, 1),
            "distill_seconds": round(distill, 1),
            "onnx": {key: networks["onnx"][key] for key in ("score", "difference", "compared_samples")},
            "int8": {
                "score": networks["onnx_int8"]["score"],
                "validation_before": networks["onnx_int8"]["validation_before"]["accuracy"],
                "validation": networks["onnx_int8"]["validation"]["accuracy"],
                "agreement": networks["onnx_int8"]["agreement"],
                "speed": round(networks["onnx_int8"]["speed"], 2),
            },
            "report": {
                "bytes": (run / "report.html").stat().st_size,
                "milliseconds": opening(run / "report.html"),
            },
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.quickstart")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="as in limbeck")
    parser.add_argument("--json", type=Path, help="where the result goes")
    given = parser.parse_args(arguments)
    machine = facts()
    found = {
        "command": "python -m benchmarks.speed.quickstart --json FILE",
        **measure(given.changes),
        "versions": machine.pop("versions"),
        "machine": machine,
    }
    text = json.dumps(found, indent=1) + "\n"
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
