"""Memory that steps free stays for the next one, and goes back at the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from limbeck._fast import memory
from limbeck._fast.memory import freed_memory_kept

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="pages are counted by Linux")

STEPS = """
import json, resource
from pathlib import Path
import torch
from limbeck._fast.memory import freed_memory_kept

def faults(steps=5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        kept = [torch.ones(2**21) for _ in range(8)]  # 8 of 8 MiB, as a step's activations
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

start = resident()
with freed_memory_kept(torch.device("cpu")):
    faults(4)
    inside = faults()
    held = resident() - start
print(json.dumps({"inside": inside, "held": held, "after": resident() - start}))
"""


def run() -> dict[str, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", STEPS], env=clean, capture_output=True, text=True, check=True
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


@linux
def test_a_step_asks_the_system_for_no_new_memory() -> None:
    assert run()["inside"] < 500, "pages; the tensors of the five steps fill 80,000"


@linux
def test_the_memory_goes_back_at_the_end() -> None:
    found = run()
    assert found["held"] > 60e6
    assert found["after"] < found["held"] - 50e6


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_environment_sets_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in [key for key in os.environ if key.startswith("MALLOC_") or key == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(known)
    assert (memory._glibc() is not None) == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setenv(name, "")
    assert memory._glibc() is None


def test_other_devices_are_left_alone() -> None:
    with freed_memory_kept(torch.device("meta")):
        pass
