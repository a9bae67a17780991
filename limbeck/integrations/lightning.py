"""Distillation as a module of PyTorch Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from limbeck.errors import require
from limbeck.integrations._single import (
    enter_only_stage,
    refuse_non_finite,
    refuse_unlabelled,
    takes_labelled_alone,
)
from limbeck.method import Method
from limbeck.record import Losses
from limbeck.task import move

require("pytorch_lightning", "lightning", "the adapter to PyTorch Lightning")
from pytorch_lightning import LightningModule  # noqa: E402
from pytorch_lightning.utilities import rank_zero_warn  # noqa: E402


class LightningMethod(LightningModule):
    """A `LightningModule` whose training step is that of a method.

    Its parameters and state are the method's: the student and what the method adds to it. The teacher is no
    module of it, so it is in no checkpoint and `.train()` does not reach it; what the method freezes stays in
    eval mode. `test_step` and `predict_step` act on what is deployed, the student; validation scores the
    network that the method has scored first, as `val_<figure>`.

    To load a checkpoint: `LightningMethod.load_from_checkpoint(path, method=method, optimizer=optimizer)`,
    then `module.method.deployable()` is the student.

    Args:
        method: a method with one stage and one update; others are refused, the engine trains them.
        optimizer: makes the optimizer from groups of parameters, which have the names of the method's, as
            `lambda groups: torch.optim.AdamW(groups, lr=1e-3)`.
        schedule: makes a schedule from the optimizer, if there shall be one.
        schedule_unit: what the schedule counts.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        *,
        schedule: Callable[[Optimizer], Any] | None = None,
        schedule_unit: Literal["step", "epoch"] = "epoch",
    ) -> None:
        super().__init__()
        self.update = enter_only_stage(method, "Lightning")
        self.method, self._labelled_alone = method, takes_labelled_alone(method)
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.schedule_unit = schedule_unit
        self._scored: list[nn.Module] = []  # in a list: a network that is scored is no part of this module
        self._measured: list[dict[str, Tensor]] = []
        self._counts: dict[str, float] = {}
        self._steps: float = 1

    def configure_optimizers(self) -> Any:
        """The optimizer over the groups of the method, and its schedule."""
        groups = [{"params": list(self.update.group(name)), "name": name} for name in self.update.trains]
        optimizer = self.make_optimizer([group for group in groups if group["params"]])
        if self.make_schedule is None:
            return optimizer
        schedule = {"scheduler": self.make_schedule(optimizer), "interval": self.schedule_unit}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_train_start(self) -> None:
        """Notes the length of the training, for weights that follow its progress."""
        self._steps = max(self.trainer.estimated_stepping_batches, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The total of the method; its unweighted terms are logged."""
        batch = self.method.task.batch(batch)
        if self._labelled_alone:
            refuse_unlabelled(self.method, batch)
        counts = self.method.task.counts(batch)
        self._compare_counts(counts)
        self._tell_method()
        losses: Losses = self.method(batch, update=self.update.name)
        refuse_non_finite(losses, batch)
        self.log_dict(losses.detached(), batch_size=int(counts["samples"]))
        return losses.total

    def _tell_method(self) -> None:
        trainer, method = self.trainer, self.method
        method.epoch, method.epochs = self.current_epoch + 1, trainer.max_epochs
        method.progress = trainer.global_step / self._steps
        method.optimizers = {self.update.name: self.optimizers()}

    def _compare_counts(self, counts: dict[str, float]) -> None:
        """Lightning averages accumulated batches as equals, also where they count differently."""
        if self.trainer.accumulate_grad_batches == 1 or not self._counts:
            self._counts = counts
        elif counts != self._counts:
            rank_zero_warn(
                f"batches of {self._counts} and {counts} are averaged as equals by accumulate_grad_batches; "
                "the engine and the Hugging Face adapter weigh them"
            )

    # -- scoring -------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Takes the network to score as it is now."""
        self._begin(next(iter(self.method.networks().values())))

    def on_test_epoch_start(self) -> None:
        """Takes what is deployed."""
        self._begin(self.method.deployable())

    def on_predict_epoch_start(self) -> None:
        """Takes what is deployed."""
        self._begin(self.method.deployable())

    def _begin(self, network: nn.Module) -> None:
        self._scored, self._measured = [network.eval()], []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measures one batch."""
        self._measure(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Measures one batch."""
        self._measure(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """The output of the student."""
        return self.method.task.call(self._scored[0], self.method.task.batch(batch))

    def _measure(self, batch: Any) -> None:
        task = self.method.task
        batch = task.batch(batch)
        self._measured.append(move(task.measure(task.call(self._scored[0], batch), batch), "cpu"))

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the task as `val_<figure>`."""
        self._end("val")

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the task as `test_<figure>`."""
        self._end("test")

    def _end(self, prefix: str) -> None:
        names = self._measured[0]
        scores = self.method.task.score({n: torch.cat([each[n] for each in self._measured]) for n in names})
        self.log_dict({f"{prefix}_{name}": value for name, value in scores.items()}, sync_dist=True)
        self._scored, self._measured = [], []
