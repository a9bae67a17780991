"""Two real processes that form one gloo group."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def run_twice(command: Sequence[str], *, timeout: float = 300) -> list[str]:
    """Runs a command of this Python as processes 0 and 1 of a group of two.

    Returns:
        What went wrong, by process; empty texts where nothing did.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=timeout)[1] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return [text[-1500:] if process.returncode else "" for process, text in zip(running, said, strict=True)]
