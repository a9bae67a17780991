from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from limbeck.data.labels import compose, listed, map_labels, single_notes
from limbeck.errors import RequestError


def test_numbers_by_value_texts_by_characters() -> None:
    assert map_labels({"train": [10, 2, 1, 2]}).classes == ["1", "2", "10"]
    assert map_labels({"train": ["10", "2", "1", "2"]}).classes == ["1", "2", "10"]
    assert map_labels({"train": ["10", "2", "1"]}, order="text").classes == ["1", "10", "2"]
    assert map_labels({"train": ["b", "a", "B"]}).classes == ["B", "a", "b"]
    assert map_labels({"train": [True, False]}).classes == ["False", "True"]
    assert map_labels({"train": ["-1", "1"]}).classes == ["-1", "1"]


@pytest.mark.parametrize(
    "labels", [[3.0, 1.0, None], ["3.0", "1.0", ""], [np.int64(3), np.int8(1), float("nan")]]
)
def test_whole_numbers_in_any_form(labels: list[Any]) -> None:
    mapped = map_labels({"train": labels})
    assert mapped.classes == ["1", "3"]
    assert mapped.targets["train"].tolist() == [1, 0, -1]


def test_numbers_with_zeros_in_front_are_texts() -> None:
    assert map_labels({"train": ["01", "1"]}).classes == ["01", "1"]


def test_parts_share_the_training_classes() -> None:
    mapped = map_labels({"train": ["a", "b", "c"], "validation": ["c", "a"], "test": [None, "b"]})
    assert mapped.targets["validation"].tolist() == [2, 0]
    assert mapped.targets["test"].tolist() == [-1, 1]
    assert any("validation has no sample of class 'b'" in note for note in mapped.notes)


def test_stated_classes_keep_their_order_and_numbers() -> None:
    mapped = map_labels({"train": ["2", "1"], "test": ["1"]}, classes=["2", "1", "never"])
    assert mapped.classes == ["2", "1", "never"]
    assert mapped.targets["train"].tolist() == [0, 1]


def test_a_stated_class_without_training_samples_is_unknown_elsewhere() -> None:
    with pytest.raises(RequestError, match="never"):
        map_labels({"train": ["a", "b"], "validation": ["never"]}, classes=["a", "b", "never"])


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"train": []}, "no training sample"),
        ({"train": [None, None]}, "no training sample has a label"),
        ({"train": ["a", "a"]}, "one class, 'a'"),
        ({"train": ["a", "b"], "validation": ["d"]}, "'d'"),
        ({"train": [1, 2], "validation": ["x"]}, "'x'"),
        ({"train": [0.5, 1.5]}, "values"),
        ({"train": [[1], [2]]}, "neither text nor"),
        ({"train": [float("inf"), 1]}, "neither text nor"),
    ],
)
def test_labels_that_make_no_classes_are_refused(parts: dict[str, list[Any]], word: str) -> None:
    with pytest.raises(RequestError, match=word):
        map_labels(parts)


def test_notes_name_and_count() -> None:
    assert single_notes(["a", "b"], torch.tensor([0, 1, 1])) == [
        "class 'a': 1 sample in training, which stays there"
    ]
    assert single_notes(["a", "b"], torch.tensor([0, 0, 1, 1])) == []
    assert listed("abcdefg") == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert compose("e\u0301") == "\u00e9"
