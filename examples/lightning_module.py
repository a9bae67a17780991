"""The same method in PyTorch Lightning: needs `pip install "limbeck[lightning]"`.

Differs from own_loop.py: `LightningMethod` and Lightning's `Trainer` in place of the loop.
"""

import logging

import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck.data import load_source
from limbeck.integrations.lightning import LightningMethod
from limbeck.methods import KD, Plain

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
torch.manual_seed(0)
data = load_source("fashion-small", limit=1000)


def loader(part: str, *, shuffle: bool = False) -> DataLoader:
    dataset = data.parts()[part]
    batch = dataset.batch(range(len(dataset)))
    return DataLoader(TensorDataset(batch["inputs"], batch["targets"]), batch_size=50, shuffle=shuffle)


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


def train(module: LightningMethod) -> pytorch_lightning.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pytorch_lightning.Trainer(max_epochs=10, accelerator="cpu", logger=False, **quiet)
    trainer.fit(module, loader("train", shuffle=True), loader("validation"))
    return trainer


def adam(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=1e-3)


teacher, student = network(512), network(16)
train(LightningMethod(Plain(teacher), adam))
module = LightningMethod(KD(student, teacher), adam)
trainer = train(module)
print({name: round(float(value), 3) for name, value in trainer.callback_metrics.items()})
trainer.test(module, loader("test"))

trainer.save_checkpoint("last.ckpt")  # holds the method, so the student, and nothing of the teacher
print(sorted(torch.load("last.ckpt", weights_only=True)["state_dict"]))
again = LightningMethod.load_from_checkpoint("last.ckpt", method=KD(network(16), teacher), optimizer=adam)
torch.save(again.method.deployable().state_dict(), "student.pt")
