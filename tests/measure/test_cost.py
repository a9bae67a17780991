"""Size, operations, memory of a fresh process, energy, rounds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck._measure.cost import compressed_size, energy, fresh_memory, operations
from limbeck._measure.rounds import NOISY, ROUNDS, in_rounds


def test_compressed_sizes_count_all_files(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert compressed_size(tmp_path / "a") < 1000
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").write_bytes(b"x" * 100_000)
    assert compressed_size(tmp_path) == 2 * compressed_size(tmp_path / "a")


def test_operations_are_torchs_own():
    assert operations(nn.Linear(10, 4), torch.rand(1, 10)) == 2 * 10 * 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_fresh_process_of_an_onnx_file_holds_no_torch(tmp_path):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from limbeck._export.onnx import export_onnx
    from limbeck._export.program import export_program

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    inputs = torch.rand(1, 1, 8, 8)
    onnx = export_onnx(network, tmp_path, inputs).path
    program = export_program(network, tmp_path, inputs).path
    small = fresh_memory("onnx", onnx, {"inputs": inputs.numpy()})
    large = fresh_memory("program", program, {"inputs": inputs.numpy()})
    assert small is not None
    assert large is not None
    assert 0 < small[0] <= small[1] < large[1]
    assert fresh_memory("onnx", tmp_path / "none.onnx", {"inputs": inputs.numpy()}) is None


def test_energy_is_that_of_the_counters_or_not_told(tmp_path):
    assert energy(lambda: None, 0, tmp_path) is None
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir()
    counter.write_text("1000000")

    def call() -> None:
        counter.write_text(str(int(counter.read_text()) + 500_000))

    assert energy(call, 0, tmp_path) == pytest.approx(0.5)


def test_rounds_take_turns_and_tell_their_spread():
    order: list[str] = []
    asked: list[tuple[int, int]] = []

    def maker(name: str):
        def make(batch: int, threads: int):
            asked.append((batch, threads))
            return lambda: order.append(name)

        return make

    found = in_rounds({"a": maker("a"), "b": maker("b")}, {"a": "x 1", "b": "y 2"}, (1, 8), (1, 1))
    assert asked == [(1, 1), (1, 1), (8, 1), (8, 1)]
    assert order[-2:] == ["a", "b"]
    cell = found["a"][1]
    assert (cell.latency.batch, cell.latency.threads, cell.latency.runtime) == (8, 1, "x 1")
    assert cell.latency.runs % ROUNDS == 0
    assert cell.noisy == (cell.spread > NOISY)
    assert cell.stored()["throughput"] == pytest.approx(8000 / cell.latency.median)


def test_the_script_of_a_fresh_process_imports_no_torch_by_itself():
    from limbeck._measure import cost

    text = Path(cost.__file__).with_name("alone.py").read_text()
    assert "\nimport torch" not in text
    assert "\nfrom limbeck" not in text
