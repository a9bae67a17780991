"""Settings of other people's loops for tests: CPU, quiet, no clipping, samples in the order given."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

#: What Lightning and the packages under it warn of by themselves.
LIGHTNING_WARNINGS = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


def perceptron(seed: int, width: int = 8) -> nn.Module:
    """A small network with batch statistics."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def rows(samples: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Samples as mappings, as a torch data set gives them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 6, generator=generator)
    targets = torch.randint(0, 3, (samples,), generator=generator)
    return [{"inputs": inputs[i], "targets": targets[i], "index": i} for i in range(samples)]


def arguments(folder: Path, **settings: Any) -> Any:
    """Quiet `TrainingArguments`."""
    from transformers import TrainingArguments

    settings = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        **settings,
    }
    return TrainingArguments(str(folder), **settings)


def constant(optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """An optimizer and a schedule that leaves its rate alone."""
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def lightning_trainer(folder: Path, **settings: Any) -> Any:
    """A quiet Lightning `Trainer`."""
    import pytorch_lightning

    settings = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": str(folder),
        **settings,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytorch_lightning.Trainer(**settings)
