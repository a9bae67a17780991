"""The same method in the `Trainer` of Hugging Face: needs `pip install "limbeck[text]"`.

Differs from own_loop.py: models, batches and outputs of transformers as they are, and `DistillationTrainer`.
"""

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, BertConfig, TrainingArguments

from limbeck.integrations.huggingface import DistillationTrainer
from limbeck.methods import KD, Plain

rng = np.random.default_rng(0)


def rows(number: int) -> Dataset:
    """Made-up sentences of 8 to 12 words; the class says which of two words is there."""
    labels = rng.integers(0, 2, number)
    ids = [rng.integers(10, 30, rng.integers(8, 13)) for _ in labels]
    for sentence, label in zip(ids, labels, strict=True):
        sentence[rng.integers(1, len(sentence))] = 5 + label
    padded = [np.pad(sentence, (0, 12 - len(sentence))) for sentence in ids]
    masks = [(sentence > 0).astype(int) for sentence in padded]
    return Dataset.from_dict({"input_ids": padded, "attention_mask": masks, "labels": labels})


def network(width: int, layers: int) -> torch.nn.Module:
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    config = BertConfig(vocab_size=30, num_attention_heads=2, max_position_embeddings=12, **sizes)
    return AutoModelForSequenceClassification.from_config(config)


def arguments(folder: str) -> TrainingArguments:
    return TrainingArguments(
        folder,
        num_train_epochs=6,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )


torch.manual_seed(0)
train, test = rows(512), rows(256)
teacher, student = network(64, layers=2), network(16, layers=1)
DistillationTrainer(Plain(teacher), arguments("teacher"), train_dataset=train).train()

trainer = DistillationTrainer(KD(student, teacher), arguments("student"), train_dataset=train)
trainer.train()
trainer.save_model("student")  # the student alone, as any model of transformers

loaded = AutoModelForSequenceClassification.from_pretrained("student")
right = trainer.predict(test).predictions.argmax(1) == np.array(test["labels"])
print(f"{type(loaded).__name__}, {loaded.num_parameters():,} parameters: {right.mean():.1%} of the test rows")
