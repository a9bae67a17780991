"""Settings for all tests: one thread, a fixed seed, no network."""

from __future__ import annotations

import os
import random
import socket
from typing import Any

import pytest

# Read when the libraries are imported, so set before any test is collected; child processes inherit them.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", MPLBACKEND="Agg", OMP_NUM_THREADS="1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses names with an address: they differ between the test processes, which then run nothing."""
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(f"give these parameters names by `ids=`: {named[:5]}")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The test processes share the cores; with one thread each they are also bit-equal to each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test gives the same result alone and after others."""
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)  # also what user code and older libraries draw from
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine can be reached; a test that would download something fails by name."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
