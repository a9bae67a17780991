from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality import cifar_sheets, page
from benchmarks.quality.run import main, run
from benchmarks.quality.settings import BENCHMARKS, CIFAR, FASHION, FEW, Benchmark
from limbeck.errors import RequestError
from limbeck.methods import METHODS, resolve

TINY = Benchmark(
    "tiny",
    "Tiny",
    {
        "data": {"source": "tests.benchmarks.pictures:tiny", "limit": 40, "validation": 0.3},
        "teacher": {"model": "cnn-tiny", "weights": "train"},
        "student": {"model": "cnn-tiny"},
        "train": {"epochs": 1, "batch_size": 10},
    },
    {"kd": {"name": "kd"}, "sskd": {"name": "sskd", "variant": "joint"}},
    seeds=1,
)


def run_tiny(folder: Path, benchmark: Benchmark = TINY, **options: Any) -> Any:
    return run(benchmark, output=folder / "runs", results=folder / "results", **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    run_tiny(folder, only=["kd"])
    assert not (folder / "results").exists()  # a part of the table is not stored
    before = [path.stat().st_mtime_ns for path in (folder / "runs").glob("cells/*/run.json")]
    run_tiny(folder)
    after = [path.stat().st_mtime_ns for path in (folder / "runs").glob("cells/*/run.json")]
    assert len(before) == 3
    assert set(before) < set(after)  # what is done is read
    return folder


def test_the_stored_leaderboard_has_every_line(finished: Path) -> None:
    stored = json.loads((finished / "results" / "quality_tiny.json").read_text("utf-8"))
    assert {row["name"] for row in stored["rows"]} == {"alone", "kd", "sskd"}
    assert (stored["name"], stored["title"]) == ("tiny", "Tiny")
    assert stored["teachers"][0]["name"] == "teacher"


def test_every_classifying_method_of_the_brief_is_a_line() -> None:
    for benchmark in BENCHMARKS.values():
        named = {own["name"] for own in benchmark.methods.values()}
        assert {"kd", "semckd", "sskd", "peer_mutual_kd"} <= named
        assert all(":" in name or name in METHODS for name in named)
        assert all("classes" in resolve(name).card.tasks for name in named)


def test_recipes_of_a_benchmark_are_whole() -> None:
    assert [recipe.name for recipe in FASHION.recipes()] == list(FASHION.methods)
    few = FEW.recipes()[0]
    assert few.data.labels == 1000
    cifar = CIFAR.recipes(Path("data"), Path("weights.safetensors"))[0]
    assert cifar.data.root == "data"
    assert cifar.all_teachers()[0].weights == "weights.safetensors"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["kdd"]}, "kdd"),
        ({"benchmark": CIFAR}, "not trained here"),
        ({"weights": Path("weights.safetensors")}, "is trained here"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        run_tiny(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_the_nearest_line_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "semkd"]) == 2
    assert "near: semckd" in capsys.readouterr().err


# -- the page ------------------------------------------------------------------------------------------


def test_the_page_says_what_the_stored_results_say() -> None:
    assert page.PAGE.read_text("utf-8") == page.page(page.stored()), "python -m benchmarks.quality.page"


def test_the_page_holds_the_table_and_what_it_means(finished: Path) -> None:
    stored = json.loads((finished / "results" / "quality_tiny.json").read_text("utf-8"))
    text = page.page([stored])
    assert "## Tiny" in text
    assert "| kd |" in text
    assert page._UNTOLD in text  # one seed
    assert '- `sskd`: `{"variant": "joint"}`' in text


def _row(name: str, low: float, high: float) -> dict[str, Any]:
    against = {"mean": (low + high) / 2, "low": low, "high": high, "seeds": 3}
    return {"name": name, "method": name, "against_kd": against, "against_alone": against}


@pytest.mark.parametrize(
    ("low", "high", "where", "reasoned"),
    [(-0.03, -0.01, "behind", True), (0.01, 0.03, "ahead of", False), (-0.01, 0.02, "level with", False)],
)
def test_reasons_stand_only_where_the_figures_ask_for_them(
    low: float, high: float, where: str, reasoned: bool
) -> None:
    said = page.meaning({"score": {"kind": "classes"}, "rows": [_row("sskd", low, high)]})
    assert f"`sskd` is {where} `kd`" in said
    assert (page.REASONS["sskd"] in said) is reasoned


def test_the_short_table_has_a_column_for_each_result(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "BENCHMARKS", {"tiny": TINY})
    stored = json.loads((finished / "results" / "quality_tiny.json").read_text("utf-8"))
    lines = page.short_table([stored]).splitlines()
    assert lines[0] == "| test accuracy | Tiny |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["teacher", "`alone`", "`kd`", "`sskd`"]


# -- CIFAR-100 from sheets -----------------------------------------------------------------------------


def write_sheets(folder: Path, width: int = 50) -> None:
    """One sheet a part, in which picture n has the colour (n // 256, n % 256, 0)."""
    folder.mkdir(parents=True)
    numbers = np.arange(100 * width).reshape(100, width)
    colours = np.stack([numbers // 256, numbers % 256, numbers * 0], -1).astype(np.uint8)
    sheet = Image.fromarray(colours.repeat(32, 0).repeat(32, 1))
    for part in ("train", "test"):
        sheet.save(folder / f"{part}-00.webp", lossless=True, quality=0, method=0)
    labels = np.arange(100 * width) % 100
    np.savez(folder / "labels.npz", train=labels, test=labels[::-1], names=[f"c{n}" for n in range(100)])


def test_sheets_are_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sheets(tmp_path / "cifar100")
    read = cifar_sheets.load(tmp_path)
    pixels, labels = read["train"]
    assert pixels.shape == (5000, 3, 32, 32)
    numbers = pixels[:, 0].long() * 256 + pixels[:, 1].long()
    assert (numbers == np.arange(5000)[:, None, None]).all()
    assert labels[:3].tolist() == [0, 1, 2]
    assert read["test"][1][:2].tolist() == [99, 98]
    assert read["classes"][99] == "c99"
    monkeypatch.setattr(cifar_sheets, "_HELD_OUT", 1000)
    parts = cifar_sheets.with_validation(tmp_path)
    assert [len(parts[part][1]) for part in ("train", "validation", "test")] == [4000, 1000, 5000]
    assert parts["validation"][0][0, 1, 0, 0] == 4000 % 256


def _write_a_broken_sheet(folder: Path) -> None:
    write_sheets(folder)
    (folder / "train-01.webp").write_bytes(b"RIFF")


def _write_a_sheet_too_many(folder: Path) -> None:
    write_sheets(folder)
    (folder / "test-01.webp").write_bytes((folder / "test-00.webp").read_bytes())


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "not on this machine"),
        (lambda folder: write_sheets(folder, width=49), "needed 100 rows of 50"),
        (_write_a_broken_sheet, "cannot be read"),
        (_write_a_sheet_too_many, "10000 pictures and 5000 labels"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    prepare: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    prepare(tmp_path / "sheets")
    with pytest.raises(RequestError, match=message):
        cifar_sheets.load(tmp_path / "sheets")


def test_cifar_with_its_trained_teacher(tmp_path: Path) -> None:
    root = Path(os.environ.get("LIMBECK_DATA", "nowhere"))
    weights = root / "weights" / "cifar100_resnet56.safetensors"
    if not (root / "cifar100" / "labels.npz").is_file() or not weights.is_file():
        pytest.skip("LIMBECK_DATA holds no cifar100/ with sheets and weights/cifar100_resnet56.safetensors")
    data = {"source": "tests.benchmarks.pictures:few_of_cifar", "limit": 100}
    shared = {**CIFAR.shared, "data": data, "train": {"epochs": 1, "batch_size": 50}}
    few = dataclasses.replace(CIFAR, shared=shared)
    done = run_tiny(tmp_path, few, root=root, weights=weights, only=["kd"])
    assert done.figures["teachers"][0]["score"] > 0.6  # 68 % on all of the test part
