"""Sets that show another one's samples in other ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.data.adapt import MapDataset
from limbeck.data.dataset import ArrayDataset, Dataset, Indices
from limbeck.data.mixing import Mixing
from limbeck.data.views import Views, view_number
from limbeck.errors import RequestError

BYTES = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
LABELS = torch.arange(12) % 3


class Counting(ArrayDataset):
    """Counts the samples that are read."""

    read = 0

    def batch(self, indices: Indices, view: int | Tensor = 0) -> dict[str, Any]:
        self.read += len(indices)
        return super().batch(indices, view)


def pictures() -> Dataset:
    return ArrayDataset(BYTES, LABELS)


def test_a_sample_that_stands_several_times_is_read_once() -> None:
    base = Counting(BYTES, LABELS)
    data = base.with_columns({"extra": torch.arange(12.0)}).augment(Views(0, ["crop", "rotate"]))
    base.read = 0
    chosen = torch.tensor([7, 7, 7, 2, 2, 2])
    numbers = view_number(torch.full((6,), 4), torch.arange(6) % 3)
    got = data.batch(chosen, numbers)
    assert base.read == 2
    for row in range(6):
        alone = data.batch([int(chosen[row])], int(numbers[row]))
        assert sorted(alone) == sorted(got)
        assert all(torch.equal(alone[key][0], got[key][row]) for key in got)


def test_a_set_that_draws_views_itself_is_asked_for_each() -> None:
    class Noise:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> tuple[Tensor, int]:
            return torch.rand(1, 4, 4), 0

    data = MapDataset(Noise()).augment(Views(0, ["flip"]))
    got = data.batch([1, 1], view_number(torch.tensor([2, 2]), torch.tensor([0, 1])))
    assert not torch.equal(got["inputs"][0], got["inputs"][1])


@pytest.mark.parametrize(
    ("entry", "inputs", "said"),
    [
        ("flip", torch.rand(4, 5), r"data.augment = \['flip'\] is for pictures"),
        ("rotate", torch.rand(4, 3, 8, 9), "data.augment: rotate turns square pictures"),
        ("colour", torch.rand(4, 3, 8, 8) * 3 - 1, "data.augment: colour is for pixels from 0 to 1"),
        ("randaugment", torch.rand(4, 2, 8, 8), "data.augment: randaugment is for grey and colour"),
    ],
)
def test_pictures_are_looked_at_before_anything_is_trained(entry: str, inputs: Tensor, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        ArrayDataset(inputs, torch.zeros(4)).augment(Views(0, [entry]))


def test_turning_alone_is_no_augmentation() -> None:
    assert not pictures().augment(Views(0, ["rotate"])).augmented
    assert pictures().augment(Views(0, ["flip"])).augment(Views(0, ["rotate"])).augmented


def test_the_choice_of_mixing_goes_with_subsets_and_labels() -> None:
    mixing = Mixing("mixup", 0.2)
    plain, data = pictures(), pictures().augment(Views(0, ["flip"])).mix(mixing)
    assert plain.mixing is None
    assert not plain.mixes
    assert data.augmented
    for each in (data, data.subset([3, 1]), data.with_targets(LABELS), data.augment(Views(0, ["crop"]))):
        assert each.mixes
        assert each.mixing == mixing
    assert torch.equal(data.batch([3])["inputs"], plain.batch([3])["inputs"])  # `batch` never mixes
    assert torch.equal(data.index(), plain.index())
    assert torch.equal(data.targets(), plain.targets())
    prints = {each.fingerprint() for each in (plain, plain.mix(mixing), plain.mix(Mixing("mixup", 0.3)))}
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("kind", "inputs", "targets", "said"),
    [
        ("cutmix", torch.rand(4, 5), torch.zeros(4, dtype=torch.long), r"'cutmix' is for pictures"),
        ("mixup", torch.zeros(4, 5, dtype=torch.long), torch.zeros(4, dtype=torch.long), "rows of numbers"),
        ("mixup", {"ids": torch.rand(4, 5)}, torch.zeros(4, dtype=torch.long), "a mapping of ids"),
        ("mixup", torch.rand(4, 5), torch.rand(4), r"one class each; these targets are float32 \[4\]"),
        ("mixup", torch.rand(4, 5), torch.zeros(4, 3, dtype=torch.long), r"these targets are int64 \[4, 3\]"),
    ],
)
def test_what_cannot_be_mixed_is_refused(kind: str, inputs: Any, targets: Tensor, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        ArrayDataset(inputs, targets).mix(Mixing(kind, 1.0))
    assert caught.value.fix == 'data.mix = "none"'


def test_turns_of_a_set_below_are_kept() -> None:
    pixels = torch.rand(3, 1, 6, 6)
    turned = ArrayDataset(pixels, torch.zeros(3, dtype=torch.long)).augment(Views(0, ["rotate"]))
    rows, places = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)
    numbers = view_number(torch.zeros(6, dtype=torch.long), places)
    expected = turned.batch(rows, numbers)["inputs"]
    assert torch.equal(expected[1::2], pixels.rot90(1, (2, 3)))
    for data in (turned.augment(Views(0, [])), turned.augment(Views(0, ["flip"]))):
        assert torch.equal(data.batch(rows, numbers)["inputs"], expected)
    assert torch.equal(
        turned.subset([2, 1]).augment(Views(0, [])).batch([0, 0], numbers[:2])["inputs"], expected[4:]
    )
