"""Mean over classes in place of a sum: the term becomes as many times too small as there are classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.losses import softened_divergence
from limbeck.methods import KD
from limbeck.record import Record
from tests.losses import slow


@pytest.mark.parametrize("num_classes", [2, 17, 1000])
def test_sum_over_classes_mean_over_samples(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    student = 3 * torch.randn(8, num_classes, generator=generator, dtype=torch.float64)
    teacher = 3 * torch.randn(8, num_classes, generator=generator, dtype=torch.float64)
    expected = slow.soft_loss(student.tolist(), teacher.tolist(), 4.0)
    assert float(softened_divergence(student, teacher, 4.0)) == pytest.approx(expected, rel=1e-10)
    method = KD(nn.Identity(), nn.Identity(), alpha=1.0, temperature=4.0)
    losses = method.losses(Record(student), Record(teacher), {"inputs": student})
    assert float(losses.total) == pytest.approx(expected, rel=1e-10)
    mean = softened_divergence(student, teacher, 4.0, "mean")
    assert float(mean) * num_classes == pytest.approx(expected, rel=1e-10)


def test_the_square_of_the_temperature_is_stated() -> None:
    assert "T^2" in (softened_divergence.__doc__ or "")
    assert any("T^2" in line for line in KD.card.equations)
