from __future__ import annotations

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import (
    class_contrast,
    direction_error,
    same_nearest,
    similarities,
    similarity_divergence,
    unit,
)


def rows(number: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_row_without_length_has_neither_direction_nor_gradient() -> None:
    value = rows(3, 4)
    value[1] = 0
    value.requires_grad_()
    found = unit(value)
    torch.testing.assert_close(found.norm(dim=1), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    found[:, 0].sum().backward()
    assert value.grad[1].abs().max() == 0
    assert value.grad.isfinite().all()
    assert unit(torch.full((1, 2), 1e-9)).abs().max() == 0
    assert unit(torch.full((1, 2), 1e-9), 1e-12).norm().item() == pytest.approx(1)
    assert unit(torch.ones(1, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_directions_are_between_0_and_4() -> None:
    value = rows(2, 3)
    assert direction_error(value, 5 * value).item() == pytest.approx(0)
    assert direction_error(value, -value, "none").tolist() == pytest.approx([4.0, 4.0])
    assert direction_error(torch.zeros(2, 3), value.float()).item() == 2
    assert direction_error(value, -value, count=4).item() == pytest.approx(2)
    with pytest.raises(RequestError, match="both must have one shape"):
        direction_error(value, rows(2, 4))


def test_lengths_and_rotations_of_features_do_not_change_the_divergence() -> None:
    own, target = rows(12, 3), rows(12, 5, seed=1)
    one = similarity_divergence(own, target, 4)
    turn = torch.linalg.qr(rows(5, 5, seed=2))[0]
    torch.testing.assert_close(similarity_divergence(own * 7, target @ turn, 4), one)
    assert similarity_divergence(target @ turn, target, 4).item() == pytest.approx(0, abs=1e-12)
    assert one.item() > 0
    assert similarity_divergence(own, target, 12).item() == 0
    assert similarity_divergence(own, target, 4, reduction="none").shape == (9,)


def test_similarities_stand_in_the_order_of_their_rows() -> None:
    value = rows(6, 4)
    found = similarities(value, 3)
    assert found.shape == (4, 2)
    expected = torch.nn.functional.cosine_similarity(value[4], value[0], dim=0)
    torch.testing.assert_close(found[2, 0], expected)
    for views in (1, 4):
        with pytest.raises(RequestError, match=f"6 features are not {views} views of each sample"):
            similarities(value, views)
    with pytest.raises(RequestError, match="6 student features and 4 teacher features"):
        similarity_divergence(value, rows(4, 4), 2)


def test_the_nearest_other_sample() -> None:
    value = rows(9, 4)
    assert same_nearest(value, value * 2, 3).item() == 1
    other = value.clone()
    other[::3] *= -1  # what was nearest of the two other samples is farthest
    assert same_nearest(value, other, 3).item() == 0


def test_rows_that_do_not_count_are_as_if_they_were_not_there() -> None:
    value, labels = unit(rows(8, 3)), torch.tensor([0, 1, 0, 1, 2, 2, 0, 1])
    counted = torch.tensor([True, True, True, True, True, False, True, True])
    found = class_contrast(value, labels, 0.2, counted=counted)
    torch.testing.assert_close(found[counted], class_contrast(value[counted], labels[counted], 0.2))
    assert found[~counted].tolist() == [0.0]
    assert found[4].item() == 0  # alone in its class
    none = value.clone().requires_grad_()
    class_contrast(none, labels, counted=torch.zeros(8, dtype=torch.bool)).sum().backward()
    assert none.grad.abs().max() == 0
