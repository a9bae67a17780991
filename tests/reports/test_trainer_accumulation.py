"""A distillation loss in the Trainer of Hugging Face grew with the number of micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from limbeck.integrations.huggingface import DistillationTrainer
from limbeck.methods import KD
from limbeck.task import Classification, Tokens
from tests.integrations.loops import arguments, constant


def bert(kind: type[nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 30}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(num_hidden_layers=1, num_labels=4, max_position_embeddings=16, **sizes, **dropout)
    return kind(config).double()


def sentences(*, tokens: bool) -> list[dict[str, torch.Tensor]]:
    """Sixteen sentences of 1 to 9 tokens; some are without a label."""
    generator = torch.Generator().manual_seed(0)
    data = []
    for i in range(16):
        length = 1 + (i * 5) % 9
        mask = (torch.arange(9) < length).long()
        ids = torch.randint(1, 30, (9,), generator=generator) * mask
        labels = torch.randint(0, 4, (9,), generator=generator).masked_fill(mask == 0, -100)
        label = labels[0] if i % 3 else torch.tensor(-1)
        data.append({"input_ids": ids, "attention_mask": mask, "labels": labels if tokens else label})
    return data


@pytest.mark.parametrize("tokens", [False, True], ids=["classes", "tokens"])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(tmp_path, tokens):
    kind = BertForTokenClassification if tokens else BertForSequenceClassification
    task = Tokens() if tokens else Classification()

    def trained(size, accumulation):
        method = KD(bert(kind, 1), bert(kind, 2), task=task, temperature=2.0, alpha=0.5)
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        run = DistillationTrainer(
            method,
            arguments(tmp_path, **settings),
            train_dataset=sentences(tokens=tokens),
            optimizers=constant(torch.optim.SGD(method.parameters(), lr=0.5)),
        )
        run.train()
        norms = [line["grad_norm"] for line in run.state.log_history if "grad_norm" in line]
        losses = [line["loss"] for line in run.state.log_history if "loss" in line]
        return norms, losses, method.student.state_dict()

    expected_norms, expected_losses, expected = trained(8, 1)
    assert len(expected_norms) == 2
    for size, accumulation in ((4, 2), (2, 4), (1, 8)):
        norms, losses, weights = trained(size, accumulation)
        assert norms == pytest.approx(expected_norms, rel=1e-6)
        assert losses == pytest.approx(expected_losses, rel=1e-4)  # the Trainer rounds its log
        assert all(torch.allclose(value, expected[name], atol=1e-12) for name, value in weights.items())
