from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import central, low_pass, spectral_representation, spectrum, unit_power
from tests.methods import slow_uhkd

SIZES = [(8, 8), (5, 5), (4, 7), (1, 6), (1, 1)]


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(side: int, rows: int, columns: int) -> Tensor:
    """A map with whole numbers of cycles down and across."""
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    return torch.cos(2 * math.pi * (rows * y + columns * x) / side)[None, None]


@pytest.mark.parametrize("size", SIZES)
def test_the_zero_frequency_is_in_the_middle_and_energy_is_kept(size: tuple[int, int]) -> None:
    values = maps(2, 3, *size)
    found = spectrum(values)
    height, width = size
    middle = found[:, :, height // 2, width // 2]
    torch.testing.assert_close(middle.real, values.sum((2, 3)) / math.sqrt(height * width))
    torch.testing.assert_close(found.abs().square().sum(), values.square().sum())


@pytest.mark.parametrize("size", SIZES)
def test_every_coefficient_equals_its_sum_over_pixels(size: tuple[int, int]) -> None:
    values = maps(1, 1, *size)
    found = spectrum(values)[0, 0]
    for row, u in enumerate(slow_uhkd.frequencies(size[0])):
        for column, v in enumerate(slow_uhkd.frequencies(size[1])):
            expected = slow_uhkd.coefficient(values[0, 0].tolist(), u, v)
            assert complex(found[row, column]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rows", range(1, 6))
@pytest.mark.parametrize("side", [5, 6, 8])
def test_a_block_starts_at_the_same_frequency_whatever_the_map(side: int, rows: int) -> None:
    frequency = torch.arange(side) - side // 2
    block = central(frequency.expand(side, side), (rows, rows))
    assert block[0].tolist() == slow_uhkd.frequencies(rows)
    assert central(frequency.expand(side, side).T, (rows, rows))[:, 0].tolist() == block[0].tolist()


def test_one_cycle_lands_in_the_same_cell_on_unequal_grids() -> None:
    for rows, columns in ((1, 0), (0, 1), (1, 1)):
        found = [
            spectral_representation(cosine(side, rows, columns), (5, 5), sigma=None, epsilon=0.0)[0, 0]
            for side in (8, 5)
        ]
        for values in found:
            cells = (values > 1e-6).nonzero().tolist()
            assert cells == [[2 - rows, 2 - columns], [2 + rows, 2 + columns]]
        torch.testing.assert_close(found[0] / 8, found[1] / 5)  # the scale differs by the root of H W


def test_the_low_pass_counts_frequencies_of_the_block() -> None:
    like = torch.empty(0, dtype=torch.float64)
    found = low_pass((4, 3), 0.8, like)
    expected = [
        [slow_uhkd.gain(u, v, (4, 3), 0.8) for v in slow_uhkd.frequencies(3)]
        for u in slow_uhkd.frequencies(4)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found[2, 1] == 1
    assert torch.equal(low_pass((1, 1), 0.5, like), torch.ones(1, 1, dtype=torch.float64))


def test_a_circular_shift_changes_no_magnitude_but_every_complex_value() -> None:
    values = maps(2, 3, 6, 7)
    moved = values.roll((2, 3), (2, 3))
    for representation in ("magnitude", "log_magnitude", "complex"):
        one, other = (
            spectral_representation(each, (5, 4), representation=representation) for each in (values, moved)
        )
        assert torch.allclose(one, other) == (representation != "complex")


@pytest.mark.parametrize("size", SIZES)
def test_whole_complex_spectra_differ_by_half_the_squared_error_of_the_maps(size: tuple[int, int]) -> None:
    one, other = maps(2, 3, *size), maps(2, 3, *size, seed=1)
    spectra = [
        spectral_representation(each, size, representation="complex", sigma=None) for each in (one, other)
    ]
    assert spectra[0].shape == (2, 6, *size)
    spectral, spatial = (spectra[0] - spectra[1]).square().mean(), (one - other).square().mean()
    torch.testing.assert_close(spectral, spatial / 2)


def test_a_constant_added_to_a_map_reaches_the_zero_frequency_alone() -> None:
    values = maps(1, 2, 6, 5)
    difference = spectrum(values + 0.5) - spectrum(values)
    cells = (difference[0, 0].abs() > 1e-9).nonzero().tolist()
    assert cells == [[3, 2]]
    assert complex(difference[0, 0, 3, 2]) == pytest.approx(0.5 * math.sqrt(30))


@pytest.mark.parametrize("downsample", ["crop", "pool"])
@pytest.mark.parametrize("representation", ["magnitude", "log_magnitude", "complex"])
def test_representations_equal_plain_loops(representation: str, downsample: str) -> None:
    values = maps(1, 2, 5, 6)
    for size, sigma in (((3, 3), 0.5), ((4, 2), None), ((1, 5), 0.7)):
        found = spectral_representation(
            values, size, representation=representation, downsample=downsample, sigma=sigma, epsilon=1e-3
        )
        slow = slow_uhkd.cropped if downsample == "crop" else slow_uhkd.pooled
        expected = slow(values[0].tolist(), size, representation, sigma, 1e-3)
        torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64))


def test_constant_and_dead_maps_have_finite_gradients() -> None:
    for value in (0.0, 2.0):
        constant = torch.full((2, 1, 4, 4), value, requires_grad=True)
        spectral_representation(constant, (4, 4)).sum().backward()
        assert constant.grad.isfinite().all()
        assert float(constant.grad.abs().max()) <= 4.0


def test_half_precision_is_computed_in_single() -> None:
    values = maps(1, 2, 6, 6)
    exact = spectral_representation(values, (3, 3))
    for dtype in (torch.float16, torch.bfloat16):
        found = spectral_representation(values.to(dtype), (3, 3))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02)


def test_unit_power() -> None:
    values = maps(3, 2, 4, 4).requires_grad_()
    found = unit_power(values, 0.0)
    torch.testing.assert_close(found.square().mean((1, 2, 3)), torch.ones(3, dtype=torch.float64))
    # The gradient runs through the divisor: along the values themselves it is 0.
    (gradient,) = torch.autograd.grad((found * maps(3, 2, 4, 4, seed=1)).sum(), values)
    torch.testing.assert_close((gradient * values).sum((1, 2, 3)), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(unit_power(torch.zeros(1, 2)), torch.zeros(1, 2))


@pytest.mark.parametrize("size", [(0, 1), (5, 1), (1, 4)])
def test_blocks_that_are_no_part_of_a_spectrum_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=rf"a block of {size[0]} x {size[1]} .* from a spectrum of 4 x 3"):
        central(torch.zeros(4, 3), size)
