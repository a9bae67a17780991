"""open-mmlab/mmrazor#190: an fp32 adaptor on half features; a teacher file in half, the student in fp32."""

from __future__ import annotations

import pytest
import torch

from limbeck._contract.tiny import example_for
from limbeck.contract import make
from limbeck.engine import Machine, Training, fit
from limbeck.methods import METHODS, resolve


@pytest.mark.parametrize("slug", METHODS)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_teacher_and_adaptors(slug, half):
    """In the engine under bf16; `limbeck.contract` has the bare loop under autocast."""
    method = make(resolve(slug), statistics=True)
    if method.teacher is not None:
        method.teacher.model.to(half)
    settings = Training(epochs=4, batch_size=8, learning_rate=0.01)
    data = example_for(method.card).data()
    result = fit(method, data, settings=settings, machine=Machine(device="cpu", precision="bf16"))
    terms = [value for entry in result.history for value in entry["terms"].values()]
    assert terms
    assert all(value == value and abs(value) != float("inf") for value in terms)
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters())
