"""Memory that one training step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: The largest block that glibc lets live in its heap, bytes.
_LARGEST = 32 * 2**20
_NEVER = 2**31 - 1


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """While inside, this process keeps the memory of freed tensors; on leaving it gives it back.

    The activations of a step are freed by its backward. By default the C library of Linux hands that memory
    to the system, which has to clear every page again in the next step. No effect on other devices, with
    other C libraries, or where the environment sets `MALLOC_*` or `GLIBC_TUNABLES`.
    """
    library = _glibc() if device.type == "cpu" else None
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _LARGEST)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)  # where glibc's own adjustment ends
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc and nobody has set it already."""
    if sys.platform != "linux" or any(
        name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ
    ):
        return None
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
