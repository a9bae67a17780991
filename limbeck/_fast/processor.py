"""What a device computes with."""

from __future__ import annotations

import os
import shutil
import sys

import torch


def supports_bf16(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 in hardware: a GPU that has it, AVX512-BF16 or AMX.

    Apple's devices compute with it and gain nothing, so they count as without.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (_has("avx512_bf16") or has_amx())


def has_amx() -> bool:
    """Whether the processor has the tile registers of AMX with bfloat16."""
    return _has("amx_bf16")


def name_of_bf16(device: torch.device | str) -> str:
    """What multiplies bfloat16 there, for people."""
    if torch.device(device).type == "cuda":
        return "this GPU has it"
    return "this processor has AMX" if has_amx() else "this processor has AVX512-BF16"


def gains_by_compiling(device: torch.device | str) -> bool:
    """Whether compiled networks are quicker there: on a GPU, and on a processor with AMX."""
    return torch.device(device).type == "cuda" or has_amx()


def compiler() -> str:
    """The C++ compiler that `torch.compile` calls for code on a processor: that of CXX, else the system's."""
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


def can_compile(device: torch.device | str) -> bool:
    """Whether `torch.compile` can build code: on a processor it needs its C++ compiler, no other one."""
    return torch.device(device).type != "cpu" or shutil.which(compiler()) is not None


def _has(name: str) -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return bool(ask().get(name, False))
    # Older torch. Every processor that has these tiles multiplies bfloat16 in them.
    older = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    known = getattr(torch.cpu, older[name], None)
    return known is not None and bool(known())
