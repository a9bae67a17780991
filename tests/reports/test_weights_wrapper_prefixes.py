"""huggingface/pytorch-image-models#2003, goldblum/AdversariallyRobustDistillation#7.

Weights saved from a wrapped network: a non-strict load accepts them and loads nothing.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limbeck.errors import RequestError
from limbeck.models import load_weights


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.module."])
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_prefixes_shared_by_all_names_are_stripped_and_said(tmp_path, prefix, ending):
    given, wanted = network(), network()
    file = tmp_path / f"w.{ending}"
    (save_file if ending == "safetensors" else torch.save)(
        {f"{prefix}{name}": value for name, value in given.state_dict().items()}, file
    )
    notes = load_weights(file, wanted)
    assert notes == [f"the prefix {prefix!r} of all names in the file was stripped"]
    assert torch.equal(wanted[1].weight, given[1].weight)


def test_a_prefix_of_some_names_is_a_mismatch(tmp_path):
    state = network().state_dict()
    state["module.0.weight"] = state.pop("0.weight")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(RequestError, match=r"1 missing, first 0.weight; 1 unexpected, first module.0.weight"):
        load_weights(tmp_path / "w.pt", network())


def test_wrapped_weights_of_another_network_are_refused(tmp_path):
    torch.save({f"module.{k}": v for k, v in nn.Linear(3, 2).state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(RequestError, match=r"4 missing, first 0.weight, 0.bias, 1.weight; 2 unexpected"):
        load_weights(tmp_path / "w.pt", network())
