"""How long limbeck takes to start: the import beyond torch's own, `--help`, `methods`, a completion.

python benchmarks/speed/startup.py --json benchmarks/results/startup.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

PYTHON = sys.executable
COMMANDS = {
    "import torch": [PYTHON, "-c", "import torch"],
    "import torch, limbeck": [PYTHON, "-c", "import torch, limbeck"],
    "limbeck --help": [PYTHON, "-m", "limbeck", "--help"],
    "limbeck methods": [PYTHON, "-m", "limbeck", "methods"],
    "completion of a verb": [PYTHON, "-m", "limbeck"],
}
COMPLETION = {"_LIMBECK_COMPLETE": "complete_bash", "COMP_WORDS": "limbeck me", "COMP_CWORD": "1"}


def seconds(name: str) -> float:
    """The wall time of one fresh process."""
    extra = COMPLETION if name.startswith("completion") else {}
    begun = time.perf_counter()
    subprocess.run(COMMANDS[name], env={**os.environ, **extra}, capture_output=True, check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Measures the commands in turn, so that they share whatever else the machine does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for name in COMMANDS:
        seconds(name)  # warm-up: byte code and file cache
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.runs):
        for name in COMMANDS:
            times[name].append(seconds(name))
    medians = {name: statistics.median(values) for name, values in times.items()}
    medians["import limbeck beyond torch"] = statistics.median(
        both - alone
        for both, alone in zip(times["import torch, limbeck"], times["import torch"], strict=True)
    )
    result = {
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "runs": arguments.runs,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    text = json.dumps(result, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
