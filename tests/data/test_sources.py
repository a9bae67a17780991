from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limbeck.data.sources import load_source
from limbeck.errors import RequestError


@pytest.mark.parametrize(
    ("source", "fix"),
    [
        ("fashion-smal", "fashion-small"),
        ("imagefoldr:some/path", "imagefolder:some/path"),
        ("csv:", "csv:PATH"),
        ("table.csv", "csv:table.csv"),
        ("table.tsv.gz", "csv:table.tsv.gz"),
        ("table.parquet", "parquet:table.parquet"),
    ],
)
def test_unknown_sources_come_with_the_fix(source: str, fix: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_source(source)
    assert caught.value.fix == fix


def test_a_folder_alone_needs_its_kind(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        load_source(str(tmp_path))
    assert caught.value.fix == f"imagefolder:{tmp_path}"


def test_nothing_like_it_lists_what_there_is() -> None:
    with pytest.raises(RequestError, match=r"fashion-small.*imagefolder:PATH.*module:function"):
        load_source("zzz")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"validation": 1.5}, "data.validation = 1.5"),
        ({"validation": -0.1}, "data.validation"),
        ({"test": 1.0}, "data.test"),
        ({"validation": 0.6, "test": 0.5}, "nothing to train on"),
        ({"size": 0}, "data.size = 0"),
        ({"limit": -3}, "data.limit = -3"),
        ({"limit": 10**6}, "data.limit = 1000000"),
        ({"augment": ["crp"]}, "no augmentation 'crp'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(RequestError, match=word):
        load_source("fashion-small", **options)


def test_options_reach_the_training_part() -> None:
    splits = load_source("fashion-small", limit=50, augment=["crop", "flip"], seed=2)
    assert len(splits.train) == 50
    assert splits.train.targets().bincount().tolist() == [5] * 10
    assert splits.train.augmented


def test_importing_the_package_is_light() -> None:
    heavy = "{'torch', 'numpy', 'PIL', 'pandas', 'datasets'}"
    code = f"import sys, limbeck.data; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_embedded_set_needs_no_optional_package() -> None:
    optional = "{'pandas', 'pyarrow', 'datasets', 'transformers', 'torchvision', 'timm'}"
    code = (
        "import sys, limbeck.data as d; d.load_source('fashion-small');"
        f"found = {optional} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
