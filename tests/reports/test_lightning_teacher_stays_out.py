"""A teacher inside the Lightning module was flipped by `.train()`, and each checkpoint held its weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader

from limbeck.integrations.lightning import LightningMethod
from limbeck.methods import KD
from tests.integrations.loops import LIGHTNING_WARNINGS, lightning_trainer, perceptron, rows

pytestmark = LIGHTNING_WARNINGS


def teacher() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def loader():
    return DataLoader(rows(24), batch_size=8)


def test_teacher_is_outside_of_tree_optimizer_and_checkpoint(tmp_path):
    network = teacher()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = LightningMethod(KD(perceptron(1), network), sgd)
    assert network not in list(made.modules())
    trainer = lightning_trainer(tmp_path, max_epochs=2)
    trainer.fit(made, loader(), loader())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not trained & {id(p) for p in network.parameters()}
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert set(saved) == {f"method.student.{name}" for name in perceptron(1).state_dict()}


def test_teacher_is_in_eval_after_any_train():
    network = teacher()
    made = LightningMethod(KD(perceptron(1), network), sgd)
    batch = {key: torch.stack([row[key] for row in rows(8)]) for key in ("inputs", "targets")}
    first = made.method.teacher(batch).output
    for flip in (made.train, made.method.train, network.train):
        flip()
        assert torch.equal(made.method.teacher(batch).output, first)
        assert not any(module.training for module in network.modules())


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    def trained(epochs, **options):
        made = LightningMethod(KD(perceptron(1), teacher()), sgd)
        trainer = lightning_trainer(tmp_path, max_epochs=epochs)
        trainer.fit(made, loader(), **options)
        return made, trainer

    expected, _ = trained(3)
    _, cut = trained(1)
    cut.save_checkpoint(tmp_path / "cut.ckpt")
    resumed, _ = trained(3, ckpt_path=tmp_path / "cut.ckpt")
    for one, other in zip(expected.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
