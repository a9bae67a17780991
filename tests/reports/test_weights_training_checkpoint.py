"""chemprop/chemprop#1227: a training checkpoint is given where weights are asked for."""

from __future__ import annotations

import argparse
import os
import pickle

import numpy
import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.models import load_weights


def checkpoint(network, **more):
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.rand(2, 3)).sum().backward()
    optimizer.step()
    return {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, **more}


def test_the_weights_inside_are_found_and_the_key_is_said(tmp_path):
    given, wanted = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(checkpoint(given, score=0.5, random={"torch": torch.get_rng_state()}), tmp_path / "last.pt")
    assert load_weights(tmp_path / "last.pt", wanted) == ["the weights are those under 'model' in last.pt"]
    assert torch.equal(wanted.weight, given.weight)


def test_deeper_and_wrapped_weights_are_found_too(tmp_path):
    given, wanted = nn.Linear(3, 2), nn.Linear(3, 2)
    state = {f"module.{name}": value for name, value in given.state_dict().items()}
    torch.save({"state": {"network": state}, "epoch": 1}, tmp_path / "last.ckpt")
    notes = load_weights(tmp_path / "last.ckpt", wanted)
    assert len(notes) == 2
    assert "'state.network'" in notes[0]
    assert torch.equal(wanted.weight, given.weight)


def test_of_several_weights_the_only_ones_that_fit_are_taken(tmp_path):
    given, wanted = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(checkpoint(given, criterion=nn.Linear(5, 5).state_dict()), tmp_path / "last.pt")
    load_weights(tmp_path / "last.pt", wanted)
    assert torch.equal(wanted.weight, given.weight)


def test_two_that_fit_are_asked_for(tmp_path):
    given, average, wanted = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    file = tmp_path / "last.pt"
    torch.save(checkpoint(given, ema=average.state_dict()), file)
    with pytest.raises(RequestError, match="2 sets of weights that fit: model, ema") as caught:
        load_weights(file, wanted)
    assert f'weights = "{file}:ema"' in caught.value.fix
    load_weights(f"{file}:ema", wanted)
    assert torch.equal(wanted.weight, average.weight)
    with pytest.raises(RequestError, match="no weights 'emma'") as caught:
        load_weights(f"{file}:emma", wanted)
    assert caught.value.near == ("ema",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("other", "named"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (numpy.float64(0.5), "scalar"),
        (nn.Linear(1, 1), "Linear"),
    ],
)
def test_other_objects_are_refused_by_type(tmp_path, other, named, zipped):
    file = tmp_path / "last.pt"
    torch.save(checkpoint(nn.Linear(3, 2), extra=other), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(RequestError, match=named) as caught:
        load_weights(file, nn.Linear(3, 2))
    assert "network.state_dict()" in caught.value.fix
    assert "weights_only=False" not in str(caught.value)


class Mischief:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["torch", "torch-old", "pickle"])
def test_no_pickle_is_run(tmp_path, form):
    file, made = tmp_path / "w.pt", tmp_path / "made"
    if form == "pickle":
        file.write_bytes(pickle.dumps({"model": Mischief(str(made))}))
    else:
        torch.save({"model": Mischief(str(made))}, file, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(RequestError, match=r"mkdir|damaged"):
        load_weights(file, nn.Linear(3, 2))
    assert not made.exists()
