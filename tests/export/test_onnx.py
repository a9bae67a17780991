from __future__ import annotations

import json
import sys
import warnings

import pytest
import torch
from torch import nn

from limbeck._export.facts import Facts
from limbeck._export.onnx import FILE, export_onnx
from limbeck.errors import RequestError, RunError
from limbeck.models import Preprocessed, Preprocessing, prepare

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PIXELS = torch.rand(4, 1, 28, 28)


def answer(file, **inputs):
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {k: v.numpy() for k, v in inputs.items()})[0])


def test_one_file_takes_the_pixels_of_the_data(tmp_path, capfd):
    built = prepare(
        "cnn-tiny", num_classes=10, inputs=PIXELS, statistics=((0.3,), (0.35,)), channels=3, size=16
    )
    network = built.network.to(memory_format=torch.channels_last).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = [{"inputs": torch.rand(30, 1, 28, 28), "targets": torch.zeros(30)}, torch.rand(5, 1, 28, 28)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = export_onnx(
            network, tmp_path / "onnx", PIXELS, validation_batches=batches, facts=Facts(["a", "b"])
        )
    assert capfd.readouterr() == ("", "")
    assert [file.name for file in (tmp_path / "onnx").iterdir()] == [FILE]
    assert (made.path, made.bytes) == (tmp_path / "onnx" / FILE, made.path.stat().st_size)
    assert (made.samples, made.batches, made.inputs) == (45, (1, 2, 7), ("inputs",))
    assert 0 <= made.difference <= 1e-4
    assert made.runtime == f"onnxruntime {runtime.__version__}"
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.inference_mode():
        expected = network.eval()(batches[1])
    torch.testing.assert_close(answer(made.path, inputs=batches[1]), expected, atol=1e-5, rtol=0)
    stored = {entry.key: entry.value for entry in onnx.load(str(made.path)).metadata_props}
    assert json.loads(stored["classes"]) == ["a", "b"]
    assert made.stored()["path"] == str(made.path)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 3)

    def forward(self, inputs):
        return self.fc(nn.functional.dropout(inputs.flatten(1), 0.5, training=True))


def test_a_file_that_differs_is_not_kept(tmp_path):
    (tmp_path / FILE).write_text("of an earlier student")
    with pytest.raises(RunError, match="differs from PyTorch by"):
        export_onnx(Preprocessed(Noisy(), Preprocessing("image", 1)), tmp_path, PIXELS)
    assert list(tmp_path.iterdir()) == []


class Inner(nn.Module):
    def forward(self, inputs):
        if inputs.sum() > 0:
            return inputs.mean((2, 3))
        return inputs.amax((2, 3))


def test_a_network_that_cannot_be_traced_names_the_module_and_the_line(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), Inner())
    with pytest.raises(RunError, match=r"module '1' \(Inner\)") as caught:
        export_onnx(Preprocessed(network, Preprocessing("image", 1)), tmp_path, PIXELS)
    assert caught.value.where.partition(":")[0] == __file__
    assert list(tmp_path.iterdir()) == []


def test_texts_of_any_length(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.save_pretrained(tmp_path / "bert")
    ids = {"input_ids": torch.randint(0, 30, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    built = prepare(f"hf:{tmp_path / 'bert'}", num_classes=3, inputs=ids)
    made = export_onnx(built.network, tmp_path / "onnx", ids)
    assert made.inputs == ("input_ids", "attention_mask")
    longer = {name: value.repeat(1, 3) for name, value in ids.items()}
    with torch.inference_mode():
        expected = built.network.eval()(**longer).logits
    torch.testing.assert_close(answer(made.path, **longer), expected, atol=1e-5, rtol=0)


def test_rows(tmp_path):
    built = prepare("mlp", num_classes=3, inputs=torch.rand(2, 5))
    made = export_onnx(built.network, tmp_path, {"inputs": torch.rand(1, 5)})
    assert answer(made.path, inputs=torch.rand(9, 5)).shape == (9, 3)


def test_wrong_examples_and_missing_packages_are_refused(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match="inputs of type list"):
        export_onnx(nn.Linear(5, 3), tmp_path, [1, 2])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RequestError, match="needs the package onnxscript") as caught:
        export_onnx(nn.Linear(5, 3), tmp_path, torch.rand(2, 5))
    assert caught.value.fix == 'pip install "limbeck[export]"'
