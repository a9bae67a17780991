"""Runs a script in several real processes that form one gloo group."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_processes(script: str, *arguments: object, world: int = 2, timeout: float = 240) -> list[str]:
    """Runs Python source in `world` processes; returns what each printed.

    Raises:
        AssertionError: a process failed; with what it wrote to stderr.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    said = []
    try:
        for process in running:
            out, err = process.communicate(timeout=timeout)
            assert process.returncode == 0, err[-3000:]
            said.append(out)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return said
