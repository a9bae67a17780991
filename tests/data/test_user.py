from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.data.sources import load_source
from limbeck.errors import RequestError
from limbeck.task import Regression

CODE = """
import torch
from limbeck.data import ArrayDataset, Splits
from limbeck.task import Classification

def some(number, classes=2):
    return torch.rand(number, 3), torch.arange(number) % classes

def pair(): return some(40), some(10)
def three(): return some(40), some(10), some(6)
def named(): return {"train": some(40), "test": some(8), "classes": ["no", "yes"]}
def splits(): return Splits(ArrayDataset(*some(40)), None, None, Classification(2), "mine", ["a note"])
def alone(): return ArrayDataset(*some(40))
def real(): return {"train": (torch.rand(40, 3), torch.rand(40))}
def seen(root, seed): return {"train": some(40), "classes": [str(root), str(seed)]}
def tensors(): return some(40)
def nothing(): return None
def unknown(): return {"train": some(40), "valid": some(4)}
def one(): return {"train": (torch.rand(4, 3), torch.zeros(4).long())}
def beyond(): return {"train": some(40), "test": some(9, 3)}
value = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(CODE)
    (tmp_path / "needs_more.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        ("pair", [40, 10]),
        ("three", [40, 10, 6]),
        ("named", [36, 4, 8]),
        ("splits", [32, 4, 4]),
        ("alone", [32, 4, 4]),
    ],
)
def test_what_a_function_may_return(function: str, sizes: list[int]) -> None:
    splits = load_source(f"my_data:{function}")
    assert [len(part) for part in splits.parts().values()] == sizes
    assert "code of yours" in splits.notes[0]


def test_classes_task_and_notes() -> None:
    assert load_source("my_data:named").classes == ["no", "yes"]
    assert load_source("my_data:pair").classes == ["0", "1"]
    assert isinstance(load_source("my_data:real").task, Regression)
    assert "a note" in load_source("my_data:splits").notes
    assert load_source("my_data:seen", root="there", seed=7).classes == ["there", "7"]


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("my_data:tensors", "returned a tuple of 2"),
        ("my_data:nothing", "returned a NoneType"),
        ("my_data:unknown", "unknown entry 'valid'"),
        ("my_data:one", "1 classes"),
        ("my_data:beyond", "a label 2 with 2 classes"),
        ("my_data:value", "no function 'value'"),
        ("my_data:pear", "no function 'pear'"),
        ("my_dat:pair", "no module 'my_dat'"),
        ("needs_more:pair", "imports not_there_at_all"),
    ],
)
def test_what_cannot_be_used_says_why(source: str, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        load_source(source)


def test_a_misspelt_kind_is_seen() -> None:
    with pytest.raises(RequestError) as caught:
        load_source("imagefoldr:flowers")
    assert caught.value.fix == "imagefolder:flowers"
