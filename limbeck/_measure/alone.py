"""Run as a script by a fresh interpreter: peak memory of a runtime that loads one file and answers once.

    python alone.py onnx|program|student FILE INPUTS.npz

Prints two numbers, bytes: with the runtime alone, and at the peak. Of an ONNX file no torch is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def peak() -> int:
    """The most memory of this process so far, bytes; as Linux tells it."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _onnx(file: str, inputs: dict[str, Any]) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def run() -> object:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return session.run(
            None, dict(zip([i.name for i in session.get_inputs()], inputs.values(), strict=True))
        )

    return run


def _program(file: str, inputs: dict[str, Any]) -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    values = [torch.from_numpy(value) for value in inputs.values()]

    def run() -> object:
        with torch.inference_mode():
            return torch.export.load(file).module()(*values)

    return run


def _student(file: str, inputs: dict[str, Any]) -> Callable[[], object]:
    import torch

    from limbeck.models.folder import load

    torch.set_num_threads(1)
    values = {name: torch.from_numpy(value) for name, value in inputs.items()}
    return lambda: load(file).logits(values.get("inputs", values))


def main(kind: str, file: str, inputs: str) -> None:
    """See the head of this file."""
    with np.load(inputs, allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    run = {"onnx": _onnx, "program": _program, "student": _student}[kind](file, given)
    before = peak()
    run()
    print(before, peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
