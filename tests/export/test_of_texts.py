"""A run on texts to its end: float and int8 files, their measures, answers to sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import limbeck
from limbeck._run.screen import silent

transformers = pytest.importorskip("transformers")
for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very"]
RECIPE = """name = "texts"
[data]
source = "csv:texts.tsv"
text = ["text"]
tokenizer = "bert"
[teacher]
model = "hf:bert"
train = { epochs = 6, learning_rate = 0.002, optimizer = "AdamW", optimizer_options = {} }
[student]
model = "hf:bert"
options = { num_hidden_layers = 1 }
[train]
epochs = 6
batch_size = 16
learning_rate = 0.002
optimizer = "AdamW"
optimizer_options = {}
[machine]
threads = 1
[export]
int8 = true
calibration = 64
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path, before = tmp_path_factory.mktemp("texts"), Path.cwd()
    os.chdir(path)
    Path("vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(vocab="vocab.txt").save_pretrained("bert")
    transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    ).save_pretrained("bert")
    texts = ["good film", "bad film", "a very good film", "a very bad film", "good", "bad"]
    rows = [f"{'pos' if 'good' in text else 'neg'}\t{text}" for text in texts * 40]
    Path("texts.tsv").write_text("label\ttext\n" + "\n".join(rows) + "\n")
    Path("mine.toml").write_text(RECIPE)
    limbeck.distill("mine.toml", screen=silent())
    yield path
    os.chdir(before)


def test_both_files_answer_like_the_student(place: Path) -> None:
    networks = limbeck.Run.open("runs/texts").figures["networks"]
    assert networks["onnx"]["difference"] <= 1e-4
    assert networks["onnx_int8"]["calibration_samples"] == 64
    assert networks["onnx_int8"]["agreement"] > 0.8
    assert (place / "runs/texts/exports/onnx/model_int8.onnx").is_file()


def test_a_sentence_is_answered_by_teacher_student_and_file(place: Path) -> None:
    said = limbeck.predict("runs/texts", ["a very good film"])
    (told,) = said.to_json()["samples"]
    assert set(told["answers"]) == {"teacher", "student"}
    assert {answer["name"] for answer in told["answers"]["student"]} == {"pos", "neg"}
    assert "input: a very good film" in said.text()


def test_its_files_are_measured(place: Path) -> None:
    measured = limbeck.measure("runs/texts/exports/onnx/model.onnx")
    (about,) = measured.models.values()
    assert about["bytes"] > 1000
    assert {cell["batch"] for cell in about["latency"]} == {1, 8, 64}
