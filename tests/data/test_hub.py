from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from limbeck.data.dataset import as_dataset
from limbeck.data.sources import load_source
from limbeck.errors import RequestError

datasets = pytest.importorskip("datasets")


def picture(value: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("L", (5, 4), value).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def pictures(number: int) -> Any:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])}
    )
    content = {"image": [picture(i) for i in range(number)], "label": [i % 2 for i in range(number)]}
    return datasets.Dataset.from_dict(content, features=features)


def test_a_folder_with_its_parts_and_stated_classes(tmp_path: Path) -> None:
    parts = {"train": pictures(20), "validation": pictures(6), "unsupervised": pictures(2)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    splits = load_source(f"hf:{tmp_path / 'set'}", test=0.2)
    assert splits.classes == ["dog", "cat"]
    assert [len(part) for part in splits.parts().values()] == [16, 6, 4]
    assert "'unsupervised'" in splits.notes[0]
    assert splits.validation is not None
    batch = splits.validation.batch([5])
    assert batch["inputs"].shape == (1, 1, 4, 5)
    assert float(batch["inputs"].max()) == pytest.approx(5 / 255)
    assert batch["targets"].tolist() == [1]


def test_a_single_set_on_disk_is_split(tmp_path: Path) -> None:
    pictures(20).save_to_disk(tmp_path / "set")
    splits = load_source(f"hf:{tmp_path / 'set'}")
    assert [len(part) for part in splits.parts().values()] == [16, 2, 2]


def test_minus_one_is_no_label(tmp_path: Path) -> None:
    features = datasets.Features(
        {"x": datasets.Value("float32"), "label": datasets.ClassLabel(names=["n", "y"])}
    )
    made = {
        "train": datasets.Dataset.from_dict({"x": [1.0, 2.0] * 10, "label": [0, 1] * 10}, features=features),
        "test": datasets.Dataset.from_dict({"x": [1.0], "label": [-1]}, features=features),
    }
    datasets.DatasetDict(made).save_to_disk(tmp_path / "set")
    splits = load_source(f"hf:{tmp_path / 'set'}")
    assert any("test has no labels" in note for note in splits.notes)


def test_as_dataset_takes_one_set() -> None:
    data = as_dataset(pictures(4))
    assert data.targets().tolist() == [0, 1, 0, 1]
    assert data.batch([2])["inputs"].shape == (1, 1, 4, 5)
    rows = as_dataset(datasets.Dataset.from_dict({"a": [1, 2, 3], "label": [0, 1, 1]}).with_format("torch"))
    assert rows.batch([0, 1])["inputs"].shape == (2, 1)
    assert torch.equal(rows.targets(), torch.tensor([0, 1, 1]))
    assert rows.batch([0, 2])["inputs"].tolist() == [[1], [3]]
    few = as_dataset(pictures(4).select([1, 3]))  # one class alone keeps its number
    assert few.targets().tolist() == [1, 1]
    ids = as_dataset(datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]], "labels": [0.5, 1.0]}))
    assert ids.batch([1])["inputs"]["input_ids"].tolist() == [[3, 0]]
    assert ids.targets().tolist() == [0.5, 1.0]
    with pytest.raises(RequestError, match="'label' holds other things"):
        as_dataset(datasets.Dataset.from_dict({"a": [1], "label": ["yes"]}))
    with pytest.raises(RequestError, match="choose a split"):
        as_dataset(datasets.DatasetDict({"train": pictures(2)}))


def test_a_name_without_connection_is_refused_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing-here", "nothing-here:config"):
        with pytest.raises(RequestError, match="nothing-here") as caught:
            load_source(f"hf:{name}")
        assert "fetched from the Hub" in str(caught.value)


def test_paths_are_never_taken_for_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for place in ("./absent", "/absent", "data/absent", "a/b/c"):
        with pytest.raises(RequestError, match="there is no folder"):
            load_source(f"hf:{place}")


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no data set"):
        load_source(f"hf:{tmp_path}")


def test_parts_without_train_are_refused(tmp_path: Path) -> None:
    datasets.DatasetDict({"first": pictures(2)}).save_to_disk(tmp_path / "set")
    with pytest.raises(RequestError, match="no part named train; it has 'first'"):
        load_source(f"hf:{tmp_path / 'set'}")
