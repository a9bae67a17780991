"""Fixtures and settings for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """Two test processes share two cores: one thread each, as OMP_NUM_THREADS=1 in the Makefile."""
    import torch

    torch.set_num_threads(1)
