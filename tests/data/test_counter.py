from __future__ import annotations

import pytest
import torch

from limbeck.data import counter


def splitmix64(state: int) -> int:
    """The reference, in Python's whole numbers: one output of SplitMix64 for a state."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_equals_the_published_generator() -> None:
    # The first output for seed 1234567 in the published test vectors of SplitMix64.
    assert splitmix64(1234567) == 6457827717110365317
    assert int(counter.bits(1234567)) == 6457827717110365317


@pytest.mark.parametrize("parts", [(0,), (5, 7), (-1, 2**63 - 1, 3), (2**64 - 1, 0, 0)])
def test_equals_a_plain_loop(parts: tuple[int, ...]) -> None:
    state = 0
    for part in parts:
        state = splitmix64(state ^ (part & (2**64 - 1)))
    assert int(counter.bits(*parts)) & (2**64 - 1) == state


def test_broadcasts_and_depends_on_every_part() -> None:
    index, view = torch.arange(50)[:, None], torch.arange(40)
    bits = counter.bits(3, index, view, "crop")
    assert bits.shape == (50, 40)
    assert len(bits.unique()) == 2000
    assert int(bits[7, 9]) == int(counter.bits(3, 7, 9, "crop"))
    assert int(counter.bits(1, 2)) != int(counter.bits(2, 1))


def test_uniform_is_uniform_and_uncorrelated() -> None:
    drawn = counter.uniform(0, torch.arange(20000), "a")
    assert drawn.dtype == torch.float64
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    counts = torch.histc(drawn, 20, 0, 1)
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert chi_square < 43.8  # 19 degrees of freedom, 99.9 %
    other = counter.uniform(0, torch.arange(20000), "b")
    assert abs(float(torch.corrcoef(torch.stack([drawn, other]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([drawn[1:], drawn[:-1]]))[0, 1])) < 0.03


def test_permutation_is_one_and_is_pure() -> None:
    first = counter.permutation(100, 0, 1, 2)
    assert first.sort().values.tolist() == list(range(100))
    assert torch.equal(first, counter.permutation(100, 0, 1, 2))
    assert not torch.equal(first, counter.permutation(100, 0, 1, 3))


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    counter.permutation(10, 0)
    counter.uniform(0, torch.arange(5))
    assert torch.equal(before, torch.get_rng_state())
