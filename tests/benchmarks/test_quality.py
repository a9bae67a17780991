from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.quality import cells, cifar_sheets, page
from benchmarks.quality.page import Figures
from benchmarks.quality.run import main, run
from benchmarks.quality.settings import CIFAR, FASHION, Benchmark, rows
from limbeck.engine import Training
from limbeck.errors import RequestError
from limbeck.methods import METHODS

TINY = Benchmark(
    name="tiny",
    title="Tiny",
    source="tests.benchmarks.pictures:tiny",
    train=40,
    choosing=20,
    labels=(None, 8),
    teacher="cnn-tiny",
    student="cnn-tiny",
    normalize="data",
    teacher_budget=Training(epochs=2, batch_size=10),
    budget=Training(epochs=4, batch_size=10),
    methods=FASHION.methods,
)


def silent(line: str) -> None:
    """No output."""


def run_tiny(folder: Path, benchmark: Benchmark = TINY, **options: Any) -> dict[str, Any]:
    file = run(benchmark, results=folder, work=folder / "work", **{"num_seeds": 1, "say": silent, **options})
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def scores(result: dict[str, Any]) -> dict[str, Any]:
    return {f"{cell['method']} {cell['labels']} {cell['seed']}": cell["scores"] for cell in result["cells"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("quality")
    return folder, run_tiny(folder)


def copied(finished: tuple[Path, dict[str, Any]], folder: Path) -> Path:
    """A copy of a finished comparison that a test may change."""
    (folder / "work" / "tiny").mkdir(parents=True)
    for name in ("quality_tiny.json", "work/tiny/teacher.safetensors"):
        (folder / name).write_bytes((finished[0] / name).read_bytes())
    return folder


def test_every_registered_method_is_compared_with_all_and_with_few_labels(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    made = {(cell["method"], cell["labels"]) for cell in finished[1]["cells"]}
    assert made == {
        *((name, labels) for name in [*METHODS, "sskd_joint"] for labels in (None, 8)),
        ("plain_mixed", 8),
    }


def test_a_cell_holds_what_a_reader_needs_to_judge_it(finished: tuple[Path, dict[str, Any]]) -> None:
    for cell in finished[1]["cells"]:
        assert set(cell["scores"]) == {"last", "chosen"}
        for found in cell["scores"].values():
            assert set(found) == {"choosing", "validation", "test"}
            assert all(0 <= value <= 1 for value in found.values())
        assert len(cell["epochs"]) == TINY.budget.epochs
        assert cell["budget"] == TINY.budget.model_dump()
        assert cell["parameters"] == finished[1]["student_parameters"]
        assert {"torch", "python", "limbeck"} <= set(cell["versions"])
        assert cell["seconds"] > 0
        assert cell["machine"]["cores"] == os.cpu_count()


def test_a_second_run_computes_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    said: list[str] = []
    before = (finished[0] / "quality_tiny.json").read_bytes()
    run_tiny(finished[0], say=said.append)
    assert said == []
    assert (finished[0] / "quality_tiny.json").read_bytes() == before


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not_stopped(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if "(3 of" in line:
            raise KeyboardInterrupt

    some = ["plain", "kd", "sskd"]
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path, say=stop, only=some)
    assert len(json.loads((tmp_path / "quality_tiny.json").read_text())["cells"]) == 3
    said: list[str] = []
    result = run_tiny(tmp_path, say=said.append, only=some)
    assert len(said) == len(result["cells"]) - 3 == 3
    uninterrupted = scores(finished[1])
    assert scores(result) == {name: uninterrupted[name] for name in scores(result)}


def test_only_the_cells_whose_settings_changed_run_again(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    said: list[str] = []
    other = dataclasses.replace(TINY, methods={**TINY.methods, "kd": {"temperature": 2.0}})
    result = run_tiny(copied(finished, tmp_path), other, say=said.append)
    assert said[0].startswith("2 stored cells have other settings")
    assert [line.split()[3] for line in said[1:]] == ["kd", "kd"]
    assert len(result["cells"]) == len(finished[1]["cells"])


def test_cells_that_learned_from_another_teacher_run_again(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    said: list[str] = []
    other = dataclasses.replace(TINY, teacher_budget=Training(epochs=1, batch_size=10))
    result = run_tiny(copied(finished, tmp_path), other, say=said.append, only=["kd"], num_seeds=2)
    assert any("another teacher" in line for line in said)
    assert result["teacher"]["digest"] != finished[1]["teacher"]["digest"]
    learned = {(cell["method"], cell["seed"]): cell["teacher"] for cell in result["cells"]}
    new = result["teacher"]["digest"]
    assert learned == {("plain", 0): None, ("plain_mixed", 0): None, ("kd", 0): new, ("kd", 1): new}


def test_a_teacher_that_is_trained_again_to_the_same_weights_changes_nothing(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path)
    (folder / "work" / "tiny" / "teacher.safetensors").unlink()
    result = run_tiny(folder, num_seeds=2, only=["kd"])
    assert result["teacher"]["digest"] == finished[1]["teacher"]["digest"]
    assert len(result["cells"]) == len(finished[1]["cells"]) + 2


def test_every_method_of_a_seed_starts_from_the_same_student() -> None:
    data = cells.read(TINY, None)
    teacher = cells.network(TINY, data, TINY.teacher, 0)
    starts = []
    for row in rows():
        method = cells.build(TINY, data, cells.Cell(8, row, 1), teacher)
        first = "students.0" if row.method == "peer_mutual_kd" else "student"
        student = method.get_submodule(first)
        starts.append(student.state_dict())
    for other in starts[1:]:
        assert all(torch.equal(other[name], value) for name, value in starts[0].items())


def test_the_split_is_the_first_of_each_class_and_the_rest() -> None:
    targets = torch.tensor([2, 0, 1, 1, 2, 0, 0, 1, 2])
    assert cells.first_of_each_class(targets, 6).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="multiple"):
        cells.first_of_each_class(targets, 4)
    with pytest.raises(ValueError, match="fewer"):
        cells.first_of_each_class(targets, 12)
    data = cells.read(TINY, None)
    parts = [set(part.index().tolist()) for part in (data.train, data.validation)]
    assert [len(part) for part in parts] == [40, 40]
    assert not parts[0] & parts[1]
    assert set(data.choosing.index().tolist()) < parts[1]
    assert data.choosing.targets().bincount().tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["kdd"]}, "kdd"),
        ({"benchmark": CIFAR}, "not trained here"),
        ({"teacher_weights": Path("weights.safetensors")}, "is trained here"),
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


def test_the_page_holds_a_table_for_each_number_of_labels(finished: tuple[Path, dict[str, Any]]) -> None:
    text = page.page([finished[1]])
    assert text.index("### All labels") < text.index("### 8 labels")
    kd = next(cell for cell in finished[1]["cells"] if cell["method"] == "kd" and cell["labels"] == 8)
    assert f"| `kd` | 1 | {100 * kd['scores']['chosen']['test']:.2f} |" in text.partition("### 8 labels")[2]


def test_figures_are_means_with_sample_deviations_and_differences_by_seed() -> None:
    one, other = Figures({0: 80.0, 1: 82.0, 2: 84.0}), Figures({0: 79.0, 1: 81.5, 3: 0.0})
    assert str(one) == "82.00 (2.00)"
    assert one.minus(other).text("{:+.2f}") == "+0.75 (0.35)"
    assert str(Figures({0: 80.0})) == "80.00"
    assert str(Figures({})) == ""


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.5, 0.7, 0.6], 1),
        ([-0.5, -0.7, -0.6], -1),
        ([0.1, 0.4, 0.5], 0),  # all ahead: 0.33 (0.21), but +- 0.52
        ([0.9, 1.0, -0.1], 0),
        ([0.5, 0.6], 0),  # two seeds: +- 12.7 / sqrt(2) deviations
        ([3.0], 0),  # one seed says nothing
        ([0.1, 0.2, 0.3] * 5, 1),
    ],
)
def test_ahead_needs_an_interval_without_0(values: list[float], verdict: int) -> None:
    assert Figures(dict(enumerate(values))).verdict() == verdict


def test_reasons_stand_only_where_the_figures_ask_for_them() -> None:
    def cell(method: str, seed: int, test: float) -> dict[str, Any]:
        return {"method": method, "labels": None, "seed": seed, "scores": {"chosen": {"test": test}}}

    for gain, said in ((-0.02, True), (0.02, False)):
        found = [cell("kd", seed, 0.8) for seed in range(3)]
        found += [cell("sskd", seed, 0.8 + gain + 0.001 * seed) for seed in range(3)]
        meaning = page._meaning(page.lines_of({"cells": found}, None), None)
        assert (page.REASONS["sskd"] in meaning) is said


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


def test_sheets_are_read_row_by_row(tmp_path: Path) -> None:
    write_sheets(tmp_path / "cifar100")
    read = cifar_sheets.load(tmp_path)
    pixels, labels = read["train"]
    assert pixels.shape == (5000, 3, 32, 32)
    assert pixels.dtype == torch.uint8
    numbers = pixels[:, 0].long() * 256 + pixels[:, 1].long()
    assert torch.equal(numbers, torch.arange(5000)[:, None, None].expand_as(numbers))
    assert labels[:3].tolist() == [0, 1, 2]
    assert read["test"][1][:2].tolist() == [99, 98]
    assert read["classes"][99] == "c99"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "not on this machine"),
        (lambda folder: write_sheets(folder, width=49), "needed 100 rows of 50"),
        (
            lambda folder: (write_sheets(folder), (folder / "train-01.webp").write_bytes(b"RIFF")),
            "cannot be read",
        ),
        (
            lambda folder: (
                write_sheets(folder),
                (folder / "test-01.webp").write_bytes((folder / "test-00.webp").read_bytes()),
            ),
            "10000 pictures and 5000 labels",
        ),
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
    few = dataclasses.replace(
        CIFAR,
        source="tests.benchmarks.pictures:few_of_cifar",
        train=100,
        budget=Training(epochs=1, batch_size=50),
    )
    result = run_tiny(tmp_path, few, root=root, teacher_weights=weights, only=["plain", "kd"])
    assert result["teacher"]["scores"]["test"] > 0.6  # 68 % on all of the test part
    assert [cell["method"] for cell in result["cells"]] == ["plain", "kd"]
