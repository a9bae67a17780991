from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
import torch

from limbeck.data.rows import RowEncoder, mean_and_std, numbers
from limbeck.errors import RequestError

TABLE: dict[str, list[Any]] = {
    "age": ["10", "20", "?", "30"],
    "kind": ["x", "y", "", "x"],
    "flag": [True, False, True, True],
}


def test_numbers_are_centred_and_scaled_categories_take_places() -> None:
    encoder = RowEncoder.fit(TABLE)
    rows = encoder.encode(TABLE)
    assert encoder.width == 4
    assert rows.shape == (4, 4)
    assert rows.dtype == torch.float32
    scale = (200 / 3) ** 0.5
    assert rows[:, 0].tolist() == pytest.approx([-10 / scale, 0, 0, 10 / scale])
    assert rows[:, 1:3].tolist() == [[1, 0], [0, 1], [0, 0], [1, 0]]
    assert float(rows[:, 3].mean()) == pytest.approx(0, abs=1e-6)


def test_other_rows_are_read_by_what_training_knew() -> None:
    rows = RowEncoder.fit(TABLE).encode({"age": ["20"], "kind": ["never seen"], "flag": [None], "more": [1]})
    assert rows.tolist() == [[0, 0, 0, 0]]


def test_plain_values_make_the_same_encoder() -> None:
    encoder = RowEncoder.fit(TABLE)
    again = RowEncoder.from_plain(json.loads(json.dumps(encoder.plain())))
    assert torch.equal(again.encode(TABLE), encoder.encode(TABLE))


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"name": [f"n{i}" for i in range(200)]}, "200 different texts"),
        ({"day": [datetime.date(2020, 1, 1)]}, "date"),
        ({"mixed": ["a", 1]}, "int, str"),
        ({"big": [1.0, float("inf")]}, "infinite"),
    ],
)
def test_columns_that_are_no_inputs_are_refused(table: dict[str, list[Any]], word: str) -> None:
    with pytest.raises(RequestError, match=word):
        RowEncoder.fit(table)


def test_rows_that_do_not_fit_are_refused() -> None:
    encoder = RowEncoder.fit(TABLE)
    with pytest.raises(RequestError, match="'kind' is missing"):
        encoder.encode({"age": ["1"], "flag": [True]})
    with pytest.raises(RequestError, match="'old'"):
        encoder.encode({"age": ["old"], "kind": ["x"], "flag": [True]})


def test_numbers_and_their_statistics() -> None:
    assert numbers(["1", " 2.5", 3, None, "NA"]) is not None
    assert numbers(["1", "x"]) is None
    assert numbers([b"1"]) is None
    assert mean_and_std([5.0, 5.0]) == (5.0, 1.0)
    assert mean_and_std([float("nan")]) == (0.0, 1.0)
