"""The figures behind the rule of precision: what is measured, and what the file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import precision
from limbeck._fast.gain import _INTENSITY


def test_a_network_is_timed_in_every_way(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "precision.json"
    name = "perceptron 784-1024-1024-10"
    assert precision.main(["--seconds", "0", "--rounds", "2", "--only", name, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    network = found["networks"][name]
    assert network["operations"] > _INTENSITY
    for what in ("train", "infer"):
        assert set(network[what]["ratio"]) == set(precision.WAYS)
        assert network[what]["ratio"]["fp32"] == 1
        assert min(network[what]["seconds"].values()) > 0


def test_the_ways_compute_the_same_network() -> None:
    import torch

    torch.manual_seed(0)
    network, inputs = precision.CASES["ResNet-20, 32x32"].build().eval(), torch.rand(4, 3, 32, 32)
    ways = {way: precision._Way(network, inputs, way) for way in precision.WAYS}
    answers = {way: one._answer().float() for way, one in ways.items()}
    assert torch.allclose(answers["channels_last"], answers["fp32"], atol=1e-5)
    assert not torch.equal(answers["bf16"], answers["fp32"])
    assert (answers["bf16_channels_last"] - answers["fp32"]).abs().max() < 0.1 * answers["fp32"].abs().max()
    assert ways["channels_last"].inputs.is_contiguous(memory_format=torch.channels_last)


def test_an_unknown_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        precision.main(["--only", "ResNet-21"])
    assert "ResNet-21" in capsys.readouterr().err
