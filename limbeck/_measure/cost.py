"""What a model costs: size, parameters, operations, memory of a fresh process, energy."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

#: Compression of the compressed size: zlib's own default.
LEVEL = 6
_CHUNK = 1 << 20
_POWERCAP = Path("/sys/class/powercap")


def compressed_size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder, compressed by zlib at `LEVEL`."""
    total = 0
    for part in [path] if path.is_file() else sorted(path.rglob("*")):
        if part.is_file():
            packer = zlib.compressobj(LEVEL)
            with part.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    total += len(packer.compress(chunk))
            total += len(packer.flush())
    return total


def operations(network: nn.Module, inputs: Any) -> int:
    """Floating-point operations of one call, counted by torch: a multiply-add is two; products only."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(inputs, Mapping):
            network(**inputs)
        else:
            network(inputs)
    return int(counter.get_total_flops())


def fresh_memory(kind: str, file: Path, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Peak memory of a new process that loads only the runtime and the file, and answers once.

    Args:
        kind: "onnx", "program" or "student".
        file: the file, or a student's folder.
        inputs: arrays by name, of one sample.

    Returns:
        Bytes with the runtime alone, and at the peak; None where the system does not tell.
    """
    if not Path("/proc/self/status").is_file():
        return None
    script = Path(__file__).with_name("alone.py")
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "inputs.npz"
        np.savez(given, allow_pickle=False, **inputs)
        done = subprocess.run(
            [sys.executable, "-P", str(script), kind, str(file), str(given)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        return None
    before, peak = map(int, done.stdout.split()[-2:])
    return before, peak


def energy(call: Callable[[], object], seconds: float = 1.0, counters: Path = _POWERCAP) -> float | None:
    """Joules of one call, by the processor's own counters (RAPL); None where they cannot be read.

    Args:
        call: repeated for `seconds`.
        seconds: at least.
        counters: folder of the counters. They are of the whole processor: whatever else runs is in it.
    """
    before = _joules(counters)
    if before is None:
        return None
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or not calls:
        call()
        calls += 1
    after = _joules(counters)
    return None if after is None or after < before else (after - before) / calls


def _joules(counters: Path) -> float | None:
    files = sorted(counters.glob("intel-rapl:[0-9]/energy_uj"))
    try:
        return sum(int(file.read_text()) for file in files) / 1e6 if files else None
    except OSError:  # only root may read them on most machines
        return None
