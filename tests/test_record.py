from __future__ import annotations

import pytest
import torch

from limbeck import Losses, Record
from limbeck.errors import RequestError


def test_the_total_is_the_weighted_sum_and_carries_gradient():
    value = torch.tensor(2.0, requires_grad=True)
    losses = Losses({"a": value * 3, "b": value**2}, {"a": 0.5, "b": torch.tensor(0.25)})
    assert losses.total.item() == 0.5 * 6 + 0.25 * 4
    losses.total.backward()
    assert value.grad.item() == 1.5 + 1.0
    assert {name: item.item() for name, item in losses.detached().items()} == {"a": 6, "b": 4, "total": 4}


def test_a_term_of_weight_zero_is_left_out_even_if_it_is_infinite():
    losses = Losses({"a": torch.tensor(1.0), "b": torch.tensor(float("inf"))}, {"a": 1.0, "b": 0.0})
    assert losses.total.item() == 1.0
    assert Losses({"a": torch.tensor(3.0)}, {"a": 0.0}).total.item() == 0.0


def test_notes_are_detached():
    value = torch.tensor(2.0, requires_grad=True)
    assert not Losses({"a": value}, {"a": 1.0}, {"n": value * 2}).notes["n"].requires_grad


@pytest.mark.parametrize(("terms", "weights"), [({}, {}), ({"a": torch.tensor(1.0)}, {"b": 1.0})])
def test_terms_and_weights_have_the_same_names(terms, weights):
    with pytest.raises(RequestError, match="same names"):
        Losses(terms, weights)


def test_a_layer_that_was_not_tapped_is_named_with_the_nearest():
    record = Record(None, {"layer3": torch.zeros(1)})
    assert record["layer3"].shape == (1,)
    with pytest.raises(RequestError) as caught:
        _ = record["layer2"]
    assert caught.value.near == ("layer3",)
