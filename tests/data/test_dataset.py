from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.data.dataset import ArrayDataset, Dataset, Splits, as_dataset, digest
from limbeck.data.views import Views
from limbeck.errors import RequestError
from limbeck.task import Classification

PIXELS = torch.randint(0, 256, (12, 1, 6, 6), dtype=torch.uint8)
LABELS = torch.arange(12) % 3


def pictures() -> ArrayDataset:
    return ArrayDataset(PIXELS, LABELS)


def test_bytes_become_pixels_from_0_to_1() -> None:
    batch = pictures().batch(torch.tensor([3, 0]))
    assert torch.equal(batch["inputs"], PIXELS[[3, 0]].float() / 255)
    assert batch["targets"].tolist() == [0, 0]
    assert batch["index"].tolist() == [3, 0]
    assert batch["view"].tolist() == [0, 0]


def test_other_values_stay_as_they_are() -> None:
    ids = torch.randint(0, 50, (5, 7))
    data = ArrayDataset({"input_ids": ids, "attention_mask": torch.ones(5, 7)})
    batch = data.batch([1, 4])
    assert torch.equal(batch["inputs"]["input_ids"], ids[[1, 4]])
    assert batch["targets"].tolist() == [-1, -1]


def test_subset_keeps_index_values() -> None:
    part = pictures().subset([10, 4, 7]).subset(torch.tensor([2, 0]))
    assert part.batch([0, 1])["index"].tolist() == [7, 10]
    assert part.index().tolist() == [7, 10]
    assert part.targets().tolist() == [1, 1]
    assert torch.equal(part.batch([0])["inputs"], pictures().batch([7])["inputs"])


def test_columns_appear_in_batches_by_position() -> None:
    data = pictures().subset([5, 6, 7]).with_columns({"hint": torch.tensor([[1.0], [2.0], [3.0]])})
    batch = data.batch([2, 0])
    assert batch["hint"].flatten().tolist() == [3.0, 1.0]
    assert batch["index"].tolist() == [7, 5]
    assert list(data.columns) == ["hint"]
    further = data.subset([1]).with_columns({"more": torch.tensor([9])})
    assert further.columns["hint"].tolist() == [[2.0]]
    assert further.batch([0])["more"].tolist() == [9]


@pytest.mark.parametrize(
    "columns", [{"inputs": torch.zeros(12)}, {"hint": torch.zeros(11)}, {"hint": torch.tensor(1.0)}]
)
def test_columns_that_do_not_fit_are_refused(columns: dict[str, Tensor]) -> None:
    with pytest.raises(RequestError):
        pictures().with_columns(columns)


def test_a_column_is_not_replaced_in_silence() -> None:
    with pytest.raises(RequestError, match="hint"):
        pictures().with_columns({"hint": LABELS}).with_columns({"hint": LABELS})


def test_with_targets_changes_targets_alone() -> None:
    data = pictures().with_targets(torch.full((12,), -1))
    assert data.targets().tolist() == [-1] * 12
    assert data.batch([4])["targets"].tolist() == [-1]
    assert data.subset([4]).targets().tolist() == [-1]
    assert torch.equal(data.batch([4])["inputs"], pictures().batch([4])["inputs"])


def test_augment_draws_by_index_not_by_position() -> None:
    views = Views(0, ["crop", "flip"])
    whole = pictures().augment(views)
    part = pictures().subset([11, 2]).augment(views)
    assert torch.equal(part.batch([0], 3)["inputs"], whole.batch([11], 3)["inputs"])
    assert torch.equal(whole.batch([11], 0)["inputs"], pictures().batch([11])["inputs"])
    assert whole.augmented
    assert whole.subset([0]).augmented
    assert not pictures().augmented
    assert whole.with_columns({"a": LABELS}).batch([1], torch.tensor([2]))["view"].tolist() == [2]


def test_fingerprint_follows_content_and_choice() -> None:
    same = [pictures().fingerprint(), ArrayDataset(PIXELS.clone(), LABELS.clone()).fingerprint()]
    assert same[0] == same[1]
    changed = PIXELS.clone()
    changed[3, 0, 0, 0] ^= 1
    others = [
        ArrayDataset(changed, LABELS),
        ArrayDataset(PIXELS, LABELS + 1),
        pictures().subset([0, 1]),
        pictures().subset([1, 0]),
        pictures().with_targets(LABELS + 1),
        pictures().with_columns({"a": LABELS}),
        pictures().with_columns({"b": LABELS}),
        pictures().augment(Views(0, ["flip"])),
        pictures().augment(Views(1, ["flip"])),
        pictures().augment(Views(0, ["crop"])),
    ]
    assert len({*same, *(data.fingerprint() for data in others)}) == 1 + len(others)


def test_digest_is_unambiguous() -> None:
    values: list[Any] = [
        "ab",
        b"ab",
        ["a", "b"],
        ["ab"],
        {"a": "b"},
        1,
        "1",
        torch.tensor([1]),
        torch.tensor([[1]]),
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest("a", "b") != digest("ab")


@pytest.mark.parametrize(
    ("inputs", "targets", "word"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), None, "channel"),
        (torch.zeros(3, 4), torch.zeros(2), "2 samples"),
        ({}, None, "at least one"),
    ],
)
def test_wrong_arrays_are_refused(inputs: Any, targets: Any, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        ArrayDataset(inputs, targets)


@pytest.mark.parametrize("position", [-1, 12])
def test_positions_outside_are_refused(position: int) -> None:
    for data in (pictures(), pictures().subset(range(12))):
        with pytest.raises(RequestError, match="12 samples"):
            data.batch([position])


def test_own_data_set_needs_four_methods() -> None:
    class Squares(Dataset):
        def __len__(self) -> int:
            return 5

        def batch(self, indices: Any, view: int | Tensor = 0) -> dict[str, Any]:
            chosen = torch.as_tensor(indices)
            return {"inputs": chosen[:, None].float() ** 2, "targets": chosen % 2, "index": chosen}

        def targets(self) -> Tensor:
            return torch.arange(5) % 2

        def fingerprint(self) -> str:
            return "squares"

    part = Squares().subset([4, 3]).with_columns({"a": torch.tensor([1, 2])})
    assert part.batch([1]) == {
        "inputs": torch.tensor([[9.0]]),
        "targets": torch.tensor([1]),
        "index": torch.tensor([3]),
        "a": torch.tensor([2]),
    }


def test_splits_say_parts_and_classes() -> None:
    splits = Splits(pictures(), None, pictures().subset([0]), Classification(["a", "b", "c"]), "mine")
    assert splits.classes == ["a", "b", "c"]
    assert list(splits.parts()) == ["train", "test"]
    assert splits.fingerprint() != Splits(pictures(), None, None, Classification(3), "mine").fingerprint()


def test_as_dataset_takes_arrays() -> None:
    data = pictures()
    assert as_dataset(data) is data
    bytes_last = np.zeros((4, 6, 5, 3), np.uint8)
    assert as_dataset((bytes_last, np.arange(4))).batch([0])["inputs"].shape == (1, 3, 6, 5)
    assert as_dataset((np.zeros((4, 6, 5), np.uint8), [0] * 0 or np.arange(4))).batch([1])[
        "inputs"
    ].shape == (1, 1, 6, 5)
    assert as_dataset(np.zeros((4, 2))).batch([0])["inputs"].dtype == torch.float32
    tokens = as_dataset({"input_ids": torch.ones(3, 2).long(), "labels": torch.tensor([0, 1, 0])})
    assert tokens.batch([1])["inputs"]["input_ids"].tolist() == [[1, 1]]
    assert tokens.targets().tolist() == [0, 1, 0]
    named = as_dataset(
        {"inputs": torch.rand(3, 2), "targets": torch.tensor([0, 1, 0]), "index": torch.tensor([7, 8, 9])}
    )
    assert named.batch([2])["index"].tolist() == [9]


def test_as_dataset_refuses_streams() -> None:
    with pytest.raises(RequestError, match="identities"):
        as_dataset(iter([1, 2]))
