"""Nothing in method, teacher and engine assumes pictures or one label a sample."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from limbeck import Losses
from limbeck.data.dataset import ArrayDataset
from limbeck.engine import Machine, Training, fit
from limbeck.method import Method
from limbeck.methods import KD
from limbeck.task import Kind, Task, Tokens, denominator
from tests.engine.tiny import CARD, weights

WORDS, SOURCE, TARGET = 9, 6, 5
START, PAD = 0, 1


class Translator(nn.Module):
    """Encoder and decoder with attention masks; says logits for every target position."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(WORDS, width)
        self.places = nn.Embedding(SOURCE, width)
        self.encoder = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, WORDS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        hidden = self.encoder(
            self.embedding(input_ids) + self.places.weight[: input_ids.shape[1]],
            src_key_padding_mask=attention_mask == 0,
        )
        length = decoder_input_ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        said = self.embedding(decoder_input_ids) + self.places.weight[:length]
        return self.head(self.decoder(said, hidden, later, memory_key_padding_mask=attention_mask == 0))


def pairs(samples: int, seed: int = 0, padding: int = 0) -> ArrayDataset:
    """Sources of unequal length; the target is the source shifted by one word, padded alike."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, TARGET + 1, (samples,), generator=generator)
    source = torch.full((samples, SOURCE), PAD)
    targets = torch.full((samples, TARGET + padding), -100)
    decoder = torch.full((samples, TARGET + padding), PAD)
    for number, length in enumerate(lengths.tolist()):
        words = torch.randint(2, WORDS, (length,), generator=generator)
        source[number, :length] = words
        targets[number, :length] = 2 + (words - 1) % (WORDS - 2)
        decoder[number, 0] = START
        decoder[number, 1:length] = targets[number, : length - 1]
    inputs = {"input_ids": source, "attention_mask": (source != PAD).long(), "decoder_input_ids": decoder}
    return ArrayDataset(inputs, targets)


SETTINGS = Training(epochs=25, batch_size=16, optimizer="AdamW", optimizer_options={}, learning_rate=0.01)


def test_a_translator_is_distilled():
    teacher, task = Translator(32, seed=1), Tokens()
    plain = type("Plain", (Method,), {"card": dataclasses.replace(CARD, tasks=("tokens",)), "losses": _hard})
    fit(plain(teacher, task=task), pairs(192), settings=SETTINGS)
    method = KD(Translator(16, seed=2), teacher, task=task, temperature=2.0)
    result = fit(method, pairs(192), pairs(64, seed=5), SETTINGS)
    assert result.scores["student"]["token_accuracy"] > 0.8


def _hard(self: Method, student: Any, teacher: Any, batch: Any) -> Losses:
    return Losses({"hard": self.task.loss(student.output, batch)}, {"hard": 1.0})


def test_micro_batches_of_unequal_token_counts_equal_one_batch():
    states = []
    for limit in (None, 3):
        method = KD(Translator(16, seed=2), Translator(16, seed=1), task=Tokens())
        method.double()
        method.teacher.model.double()
        settings = Training(epochs=1, batch_size=8, schedule="none")
        fit(method, pairs(16), settings=settings, machine=Machine(micro_batch=limit))
        states.append(weights(method))
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-7, atol=1e-9)


def test_extra_padding_changes_nothing():
    teacher, student = Translator(16, seed=1).eval(), Translator(16, seed=2).eval()
    method = KD(student, teacher, task=Tokens())
    short, padded = (method(pairs(8, padding=extra).batch(range(8))).total for extra in (0, 1))
    torch.testing.assert_close(short, padded)


class Boxes(Task):
    """One box a picture, [B, 4]; the score is the mean overlap."""

    name = "boxes"
    kind: ClassVar[Kind] = "boxes"
    score_name = "overlap"

    def read(self, output: Any) -> Any:
        return output["boxes"]

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        each = (output - batch["targets"]).abs().mean(1)
        return each.sum() / denominator(batch, "samples", len(each))

    def counts(self, batch: Any) -> dict[str, float]:
        return {"samples": float(len(batch["targets"])), "targets": float(len(batch["targets"]))}

    def measure(self, output: Tensor, batch: Any) -> dict[str, Tensor]:
        target = batch["targets"]
        low = torch.maximum(output[:, :2], target[:, :2])
        high = torch.minimum(output[:, 2:], target[:, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (output, target)]
        return {"overlap": shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)}

    def score(self, statistics: Any) -> dict[str, float]:
        return {"overlap": float(statistics["overlap"].mean())}


class Detector(nn.Module):
    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.box = nn.Linear(width, 4)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"boxes": self.box(self.body(inputs))}


class BoxDistillation(Method):
    card = dataclasses.replace(CARD, tasks=("boxes",), teacher="outputs")

    def losses(self, student: Any, teacher: Any, batch: Any) -> Losses:
        soft = self.task.loss(student.output, {**batch, "targets": teacher.output})
        return Losses(
            {"hard": self.task.loss(student.output, batch), "soft": soft}, {"hard": 0.5, "soft": 0.5}
        )


def scenes(samples: int, seed: int = 0) -> ArrayDataset:
    """Pictures 1x8x8 with one bright rectangle."""
    generator = torch.Generator().manual_seed(seed)
    pictures, boxes = torch.zeros(samples, 1, 8, 8), torch.zeros(samples, 4)
    for number in range(samples):
        left, top = torch.randint(0, 4, (2,), generator=generator).tolist()
        width, height = torch.randint(2, 5, (2,), generator=generator).tolist()
        pictures[number, 0, top : top + height, left : left + width] = 1
        boxes[number] = torch.tensor([left, top, left + width, top + height]) / 8
    return ArrayDataset(pictures, boxes)


def test_boxes_as_targets_are_distilled():
    task, settings = Boxes(), SETTINGS.model_copy(update={"epochs": 40})
    teacher = Detector(64, seed=1)
    plain = type("Plain", (Method,), {"card": dataclasses.replace(CARD, tasks=("boxes",)), "losses": _hard})
    fit(plain(teacher, task=task), scenes(256), settings=settings)
    method = BoxDistillation(Detector(24, seed=2), teacher, task=task)
    result = fit(method, scenes(256), scenes(64, seed=3), settings)
    assert result.chosen_scores["student"]["overlap"] > 0.6
