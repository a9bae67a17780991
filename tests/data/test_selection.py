from __future__ import annotations

import pytest
import torch

from limbeck.data.dataset import ArrayDataset
from limbeck.data.selection import balanced, is_labelled, keep_labels, limited, split
from limbeck.errors import RequestError


def labelled(counts: list[int]) -> ArrayDataset:
    targets = torch.cat([torch.full((number,), label) for label, number in enumerate(counts)])
    return ArrayDataset(torch.rand(len(targets), 3), targets)


def counts_of(targets: torch.Tensor) -> list[int]:
    return torch.bincount(targets[targets >= 0]).tolist()


def test_labels_are_kept_evenly_and_the_rest_is_minus_one() -> None:
    data = keep_labels(labelled([50, 30, 20]), 30, seed=0)
    assert len(data) == 100
    assert counts_of(data.targets()) == [10, 10, 10]
    assert int((data.targets() == -1).sum()) == 70
    kept = data.targets() >= 0
    assert torch.equal(data.targets()[kept], labelled([50, 30, 20]).targets()[kept])
    assert data.index().tolist() == list(range(100))


def test_a_small_class_gives_all_and_the_others_make_up_for_it() -> None:
    assert counts_of(keep_labels(labelled([50, 30, 2]), 30, seed=0).targets()) == [14, 14, 2]
    assert counts_of(keep_labels(labelled([5, 5, 5]), 7, seed=0).targets()) == [3, 2, 2]


def test_a_smaller_number_keeps_a_part_of_a_larger_one() -> None:
    data = labelled([40, 40, 40])
    few, many = keep_labels(data, 30, 1).targets() >= 0, keep_labels(data, 60, 1).targets() >= 0
    assert bool((many | ~few).all())
    assert not torch.equal(few, keep_labels(data, 30, 2).targets() >= 0)


def test_the_choice_belongs_to_the_sample_not_to_its_place() -> None:
    data = labelled([20, 20])
    order = torch.randperm(40)
    kept = data.index()[keep_labels(data, 10, 0).targets() >= 0]
    shuffled = data.subset(order)
    again = shuffled.index()[keep_labels(shuffled, 10, 0).targets() >= 0]
    assert kept.tolist() == again.sort().values.tolist()


@pytest.mark.parametrize("number", [None, 0])
def test_none_keeps_every_label(number: int | None) -> None:
    data = labelled([3, 3])
    assert keep_labels(data, number, 0) is data
    assert limited(data, number, 0) is data


@pytest.mark.parametrize("number", [2, 101])
def test_impossible_numbers_are_refused(number: int) -> None:
    with pytest.raises(RequestError, match=f"data.labels = {number}"):
        keep_labels(labelled([50, 30, 20]), number, 0)


def test_real_values_and_rows_of_labels() -> None:
    real = keep_labels(ArrayDataset(torch.rand(10, 2), torch.rand(10)), 4, 0)
    assert int(real.targets().isnan().sum()) == 6
    rows = keep_labels(ArrayDataset(torch.rand(10, 2), torch.ones(10, 3).long()), 4, 0)
    assert int((rows.targets() == -1).all(1).sum()) == 6


def test_limit_is_class_balanced_and_keeps_order_and_index() -> None:
    data = limited(labelled([50, 30, 20]), 9, seed=0)
    assert counts_of(data.targets()) == [3, 3, 3]
    assert data.index().tolist() == sorted(data.index().tolist())
    partly = keep_labels(labelled([50, 50]), 10, 0)
    assert len(limited(partly, 60, 0)) == 60
    assert int((limited(partly, 60, 0).targets() < 0).sum()) > 40


def test_split_is_stratified_disjoint_and_complete() -> None:
    data = labelled([100, 50, 10, 2, 1])
    parts = split(data.targets(), {"validation": 0.1, "test": 0.2}, 0, data.index())
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(163))
    assert counts_of(data.targets()[parts["validation"]]) == [10, 5, 1, 1]
    assert counts_of(data.targets()[parts["test"]]) == [20, 10, 2]
    assert counts_of(data.targets()[parts["train"]]) == [70, 35, 7, 1, 1]
    again = split(data.targets(), {"validation": 0.1, "test": 0.2}, 0, data.index())
    assert all(torch.equal(parts[name], again[name]) for name in parts)
    other = split(data.targets(), {"validation": 0.1, "test": 0.2}, 1, data.index())
    assert not torch.equal(parts["validation"], other["validation"])


def test_split_leaves_unlabelled_samples_in_training() -> None:
    targets = torch.tensor([0, 0, 1, 1, -1, -1])
    parts = split(targets, {"validation": 0.5}, 0, torch.arange(6))
    assert {4, 5} <= set(parts["train"].tolist())
    assert len(parts["validation"]) == 2


def test_split_of_real_values_is_a_share() -> None:
    parts = split(torch.rand(100), {"validation": 0.25}, 0, torch.arange(100))
    assert len(parts["validation"]) == 25


def test_is_labelled() -> None:
    assert is_labelled(torch.tensor([0, -1])).tolist() == [True, False]
    assert is_labelled(torch.tensor([0.5, torch.nan])).tolist() == [True, False]
    assert is_labelled(torch.tensor([[1, 0], [1, -1]])).tolist() == [True, False]


def test_balanced_gives_sorted_positions() -> None:
    chosen = balanced(torch.tensor([0, 1] * 10), 6, 0, torch.arange(20), "data.limit")
    assert chosen.tolist() == sorted(chosen.tolist())
