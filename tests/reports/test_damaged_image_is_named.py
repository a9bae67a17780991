"""D6, pytorch/pytorch#7238: a truncated picture stops a long run, unnamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from limbeck import check, fit
from limbeck._run.screen import silent
from limbeck.data import find_unreadable, load_source
from limbeck.data.loader import Loader
from limbeck.engine.listener import EpochEnd, Listener
from limbeck.engine.settings import Training
from limbeck.errors import RunError
from limbeck.methods.plain import Plain


def folder(root: Path) -> Path:
    """20 pictures of noise in two classes."""
    generator = np.random.default_rng(0)
    for i in range(20):
        path = root / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return root


def damage(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


def test_all_unreadable_files_are_listed(tmp_path: Path) -> None:
    root = folder(tmp_path)
    bad = [damage(root / "a" / "04.jpg"), damage(root / "b" / "11.jpg")]
    splits = load_source(f"imagefolder:{root}", validation=0, test=0)
    assert [item.name for item in find_unreadable(splits.train)] == [str(path) for path in bad]
    assert all("truncated" in item.reason for item in find_unreadable(splits.train))


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_names_the_path(tmp_path: Path, workers: int) -> None:
    root = folder(tmp_path)
    bad = damage(root / "b" / "11.jpg")
    splits = load_source(f"imagefolder:{root}", validation=0, test=0)
    with pytest.raises(RunError) as caught:
        list(Loader(splits.train, 4, seed=0, num_workers=workers))
    assert caught.value.where == str(bad)
    assert caught.value.exit_code == 1
    assert "skip_unreadable" in str(caught.value)


def test_a_run_names_the_path_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    splits = load_source(f"imagefolder:{root}", validation=0, test=0)

    class Damaging(Listener):
        def on_epoch(self, event: EpochEnd) -> None:
            if event.epoch == 1:
                damage(root / "a" / "04.jpg")

    torch.manual_seed(0)
    method = Plain(nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, 2)), task=splits.task)
    with pytest.raises(RunError, match=r"04\.jpg"):
        fit(
            method,
            splits.train,
            settings=Training(epochs=3, batch_size=4),
            folder=tmp_path / "run",
            listener=Damaging(),
        )
    assert any(tmp_path.joinpath("run").rglob("*.safetensors"))


def test_skipping_only_on_request_counted_and_index_unchanged(tmp_path: Path) -> None:
    root = folder(tmp_path)
    whole = load_source(f"imagefolder:{root}", validation=0, test=0)
    damage(root / "a" / "04.jpg")
    splits = load_source(f"imagefolder:{root}", validation=0, test=0, skip_unreadable=True)
    assert len(splits.train) == 19
    assert 2 not in splits.train.index().tolist()  # 04.jpg is the third picture
    assert splits.train.index().tolist() == [i for i in range(20) if i != 2]
    assert any("1 unreadable of 20 left out" in note and "04.jpg" in note for note in splits.notes)
    last = splits.train.batch([18])
    assert last["index"].tolist() == [19]
    assert torch.equal(last["inputs"], whole.train.batch([19])["inputs"])


def test_check_lists_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = folder(Path("data"))
    bad = [damage(root / "a" / "04.jpg"), damage(root / "b" / "11.jpg")]
    Path("mine.toml").write_text(
        'name = "damaged"\n[data]\nsource = "imagefolder:data"\n[student]\nmodel = "cnn-tiny"\nsize = 28\n'
        '[method]\nname = "plain"\n[export]\nto = []\n'
    )
    done = check("mine.toml", screen=silent())
    assert [(each.code, each.where) for each in done.errors] == [("K114", "mine.toml:3:1")], done.text()
    assert all(path.as_posix() in done.errors[0].detail for path in bad)
