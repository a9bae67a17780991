"""Random hyperplanes: values, bits and their bias."""

from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import hash_bias, hash_error, hash_values
from tests.methods import slow_lshfm as slow


@pytest.mark.parametrize("number", [1, 2, 7, 20])
def test_the_bias_is_the_lower_median_over_the_set(number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    features, weight = torch.rand(number, 3, generator=generator), torch.randn(9, 3, generator=generator)
    found = hash_bias(features, weight, "median")
    assert found.tolist() == pytest.approx(
        slow.lower_median_bias(features.tolist(), weight.tolist()), abs=1e-6
    )
    on = (hash_values(features, weight, found) > 1e-6).sum(0)
    assert on.max() <= number // 2
    assert torch.allclose(hash_bias(features, weight, "mean"), -(features @ weight.T).mean(0), atol=1e-6)


def test_the_median_in_pieces_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    features, weight = torch.rand(11, 3), torch.randn(10, 3)
    whole = hash_bias(features, weight, "median")
    monkeypatch.setattr("limbeck.losses.hashing._VALUES", 25)
    assert torch.allclose(hash_bias(features, weight, "median"), whole, atol=1e-6)


def test_a_value_of_zero_is_the_bit_zero_and_the_teacher_has_no_gradient() -> None:
    student, teacher = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    hash_error(student, teacher).sum().backward()
    assert torch.equal(student.grad, torch.tensor([[0.25, 0.25]]))  # sigmoid(0) - 0, over N
    assert teacher.grad is None


def test_logits_of_any_size_stay_finite() -> None:
    student = torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
    found = hash_error(student, torch.tensor([[1.0, 1.0, 1.0]]))
    found.sum().backward()
    assert float(found.detach()) == pytest.approx((1e4 + 0.6931) / 3, rel=1e-4)
    assert torch.allclose(student.grad, torch.tensor([[-1.0, 0.0, -0.5]]) / 3)


def test_values_are_float32_under_autocast() -> None:
    features, weight, bias = torch.rand(4, 6), torch.randn(9, 6), torch.randn(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = hash_values(features, weight, bias)
    assert torch.equal(found, hash_values(features, weight, bias))
    assert hash_values(features.bfloat16(), weight, bias).dtype == torch.float32


@pytest.mark.parametrize("shape", [(4, 5), (4, 6, 1), (6,)])
def test_features_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"for hyperplanes of 6 dimensions; needed \[B, 6\]"):
        hash_values(torch.rand(shape), torch.randn(9, 6), torch.zeros(9))


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(RequestError, match="hash values"):
        hash_error(torch.zeros(2, 3), torch.zeros(2, 4))
