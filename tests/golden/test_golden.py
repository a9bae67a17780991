from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.methods import METHODS
from tests.golden import MODULES, SLUGS
from tests.golden.__main__ import main
from tests.golden.checker import check_file, slug_of

FOLDER = Path(__file__).parent
FILES = [path for path in sorted(FOLDER.glob("*.npz")) if slug_of(path.name) in MODULES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    outcome = check_file(path)
    assert outcome.state == "passed", outcome.text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_in_single_precision(path: Path) -> None:
    outcome = check_file(path, dtype=torch.float32)
    assert outcome.state == "passed", outcome.text


def test_every_method_of_a_paper_has_cases_and_files() -> None:
    built = set(METHODS) & set(SLUGS)
    assert set(MODULES) == built
    assert {slug_of(path.name) for path in FILES} == built
    assert "kd" in built


def rewrite(source: str, target: Path, **changes: object) -> Path:
    """A copy of a file with arrays replaced, added, or left out where None."""
    with np.load(FOLDER / source) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, value in changes.items():
        arrays[name] = value(arrays[name]) if callable(value) else value
    np.savez(target, **{name: value for name, value in arrays.items() if value is not None})
    return target


def perturbed(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed.flat[-1] += 1e-6 * max(1.0, abs(changed.flat[-1]))
    return changed


@pytest.mark.parametrize("name", np.load(FOLDER / "kd_soft.npz").files)
def test_any_perturbed_array_fails(name: str, tmp_path: Path) -> None:
    stored = np.load(FOLDER / "kd_soft.npz")[name]
    change = perturbed if stored.dtype.kind == "f" else lambda array: (array + 1) % 5
    path = rewrite("kd_soft.npz", tmp_path / "kd_soft.npz", **{name: change})
    # At T_hot the loss no longer depends on the temperature: a millionth more of it changes nothing.
    expected = "passed" if name == "T_hot" else "failed"
    assert check_file(path).state == expected


def test_the_rest_of_the_name_does_not_matter(tmp_path: Path) -> None:
    outcome = check_file(rewrite("kd_topk.npz", tmp_path / "kd_soft_17.npz"))
    assert outcome.state == "passed"
    assert "case topk" in outcome.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"surprise": np.zeros(3)}, "unknown arrays surprise"),
        ({"kl_grad": None}, "missing arrays kl_grad"),
        ({"kl_loss": None}, "fit no known case"),
        ({"logits_t": lambda array: array[:, :5]}, "RequestError"),
        ({"kl_loss": lambda array: array[:2]}, "kl_loss has shape (4,)"),
        ({"kl_loss": lambda array: array * np.nan}, "kl_loss differs by inf"),
        ({"T": None}, "KeyError"),
    ],
)
def test_arrays_that_fit_no_case_fail(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    outcome = check_file(rewrite("kd_soft.npz", tmp_path / "kd_x.npz", **changes))
    assert outcome.state == "failed"
    assert words in outcome.text
    assert "\n" not in outcome.text


def test_a_file_belongs_to_the_longest_slug() -> None:
    assert slug_of("kd_soft.npz") == "kd"
    assert slug_of("mlkd_base.npz") == "mlkd"
    assert slug_of("mlkd_bert_trace.npz") == "mlkd_bert"
    assert slug_of("peer_mutual_kd_x.npz") == "peer_mutual_kd"
    assert slug_of("something.npz") is None


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite("kd_topk.npz", tmp_path / "kd_topk.npz")
    np.savez(tmp_path / "residual_kd_base.npz", x=np.zeros(1))
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok kd_topk.npz: kd, case topk, 23 arrays")
    assert lines[1] == "not built yet: residual_kd  (residual_kd_base.npz)"
    assert lines[-1] == "1 passed, 0 failed"
    np.savez(tmp_path / "kd_x.npz", x=np.zeros(1))
    np.savez(tmp_path / "kd_y.npz", x=np.array([None]))
    (tmp_path / "kd_z.npz").write_bytes(b"not a zip")
    np.savez(tmp_path / "other.npz", x=np.zeros(1))
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 4 failed"
    assert "FAILED kd_x.npz: its arrays fit no known case of kd" in lines
    assert sum(line.startswith("FAILED") for line in lines) == 4


def test_a_folder_without_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no .npz file" in capsys.readouterr().err


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    rewrite("kd_outputs.npz", tmp_path / "kd_outputs.npz")
    command = [sys.executable, "-m", "tests.golden", str(tmp_path)]
    done = subprocess.run(command, cwd=FOLDER.parents[1], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 passed, 0 failed"), done.stderr
