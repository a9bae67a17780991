"""Programs, int8 files and the script beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from limbeck._export import files
from limbeck._export.facts import Facts
from limbeck._export.files import open_file, ready
from limbeck._export.int8 import export_int8
from limbeck._export.onnx import export_onnx
from limbeck._export.parity import Parity
from limbeck._export.program import export_program
from limbeck._export.tracing import Traced
from limbeck.data import read_image
from limbeck.errors import RequestError, RunError
from limbeck.models import Preprocessed, Preprocessing, prepare

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

PIXELS = torch.rand(8, 1, 28, 28)
CLASSES = [f"class {number}" for number in range(10)]
FACTS = Facts(CLASSES, "classes", {"kind": "image", "channels": 1, "size": [28, 28]})


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    built = prepare(
        "cnn-tiny", num_classes=10, inputs=PIXELS, statistics=((0.3,), (0.35,)), channels=3, size=16
    )
    return built.network.eval()


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("make", [export_onnx, export_program])
def test_a_file_opened_again_answers_like_its_network(tmp_path, network, make, in_graph):
    made = make(network, tmp_path, PIXELS, validation_batches=[PIXELS], facts=FACTS, in_graph=in_graph)
    assert (made.samples, made.batches) == (18, (1, 2, 7))
    loaded = ready(made.path)
    assert (loaded.classes, loaded.kind) == (CLASSES, "classes")
    assert loaded.preprocessing.kind == ("identity" if in_graph else "image")
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(PIXELS), network(PIXELS), atol=1e-4, rtol=0)
    assert loaded.predict(PIXELS[0])[0][0] in CLASSES


def test_a_program_that_differs_or_is_frozen_is_not_kept(tmp_path):
    class Noisy(nn.Module):
        def forward(self, inputs):
            return nn.functional.dropout(inputs.flatten(1), 0.5, training=True)

    class Frozen(nn.Module):
        def forward(self, inputs):
            return inputs.reshape(int(inputs.shape[0]), -1)

    with pytest.raises(RunError, match="PyTorch program differs"):
        export_program(Noisy(), tmp_path, PIXELS)
    with pytest.raises(RunError, match="cannot be exported to a PyTorch program"):
        export_program(Frozen(), tmp_path, PIXELS)
    assert list(tmp_path.iterdir()) == []


def test_only_a_single_network_can_leave_its_preprocessing_out(tmp_path):
    with pytest.raises(RequestError, match="no single network"):
        export_onnx(nn.Flatten(), tmp_path, PIXELS, in_graph=False)


def test_large_outputs_are_compared_relatively():
    assert Parity(difference=1e-4, largest=10).within(1e-4)
    assert not Parity(difference=2e-4, largest=10).within(1e-4)
    assert Parity(difference=2e-3, largest=30).within(1e-4)
    assert not Parity(difference=float("inf"), largest=30).within(1e-4)


def test_int8_keeps_what_the_file_says_and_is_close(tmp_path, network, capfd):
    made = export_onnx(network, tmp_path, PIXELS, facts=FACTS)
    traced = Traced(network, PIXELS)
    small = export_int8(made.path, traced, [torch.rand(64, 1, 28, 28), PIXELS])
    assert capfd.readouterr() == ("", "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model_int8.onnx"]
    assert small.stat().st_size < made.bytes
    loaded = ready(small)
    assert loaded.classes == CLASSES
    with torch.inference_mode():
        expected = network(PIXELS)
    assert float((loaded.network(PIXELS) - expected).abs().max()) < 0.5 * float(expected.std()) + 0.05
    for number in (1, 2, 7):
        assert loaded.network(torch.rand(number, 1, 28, 28)).shape == (number, 10)


def test_files_that_are_none_are_refused(tmp_path):
    for name in ("a.onnx", "a.pt2"):
        with pytest.raises(RequestError, match="there is no file"):
            open_file(tmp_path / name)
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(RequestError, match="is damaged, or no"):
            open_file(tmp_path / name)
    with pytest.raises(RequestError, match="no file for a device"):
        open_file(tmp_path / "a.png")


# -- the script ------------------------------------------------------------------------------------------

BLOCKED = """
import sys, runpy
for name in ("torch", "limbeck"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(folder: Path, *words: str) -> list[tuple[str, float]]:
    script = folder / "run_onnx.py"
    shutil.copyfile(Path(files.__file__).with_name("run_onnx.py"), script)
    (folder / "blocked.py").write_text(BLOCKED, encoding="ascii")
    done = subprocess.run(
        [sys.executable, "-P", str(folder / "blocked.py"), str(script), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pairs = [line.split(None, 1) for line in done.stdout.splitlines()]
    return [(name, float(share.rstrip("%")) / 100) for share, name in pairs]


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_the_script_reads_pictures_as_the_data_do(tmp_path, network, in_graph, mode):
    made = export_onnx(network, tmp_path / "onnx", PIXELS, facts=FACTS, in_graph=in_graph)
    levels = (torch.rand(40, 56, 3) * 255).to(torch.uint8).numpy()
    picture = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    Image.fromarray(levels).convert(mode).save(picture)
    found = run_script(tmp_path, str(picture))
    inputs = read_image(picture, channels=1, size=(28, 28))[None].float() / 255
    with torch.inference_mode():
        shares = network(inputs).softmax(1)[0]
    assert len(found) == 5
    for name, share in found:
        assert share == pytest.approx(float(shares[CLASSES.index(name)]), abs=2e-4)
    loaded = ready(made.path)
    assert loaded.predict(str(picture))[0][0] == found[0][0]


def test_the_script_reads_rows(tmp_path):
    columns = [
        {"name": "width", "mean": 2.0, "std": 0.5, "categories": []},
        {"name": "colour", "mean": 0.0, "std": 1.0, "categories": ["blue", "red"]},
    ]
    facts = Facts(["a", "b", "c"], "classes", {"kind": "row", "columns": columns})
    built = prepare("mlp", num_classes=3, inputs=torch.rand(2, 3))
    made = export_onnx(built.network, tmp_path / "onnx", torch.rand(2, 3), facts=facts)
    found = run_script(tmp_path, "width=3.5", "colour=red")
    expected = ready(made.path).predict({"width": 3.5, "colour": "red"})
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [share for _, share in found] == pytest.approx([share for _, share in expected], abs=2e-4)


def test_facts_survive_as_text():
    facts = Facts(["<b>", "\u00e9"], "labels", {"kind": "row"}, Preprocessing("image", 1), ("x", "y"))
    again = Facts.from_json(facts.to_json())
    assert json.loads(facts.to_json()) == json.loads(again.to_json())
    assert isinstance(Preprocessed(nn.Identity(), again.preprocessing), nn.Module)
