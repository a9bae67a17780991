"""What a model is for: how a batch enters it, the supervised loss, the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from limbeck._clock import part
from limbeck.errors import RequestError
from limbeck.task.batches import as_model_type, declared

Kind = Literal["classes", "labels", "values", "tokens", "boxes"]
Batch = dict[str, Any]

#: Keys of a batch in normal form; everything else in a mapping without "inputs" is an input of the model.
RESERVED = ("inputs", "targets", "index", "mask", "count", "view", "mixed")
#: Names under which others keep the targets (Hugging Face, torchvision).
_TARGET_NAMES = ("targets", "labels", "label", "target")


class Task(ABC):
    """How a batch enters a model, the supervised loss and the score. Not a trainer.

    Attributes:
        name: shown in plans and reports.
        kind: what the output means; methods choose the form of their terms by it.
        score_name: the entry of `score` that chooses checkpoints; higher is better.
        takes_mixed: its loss honours `mixed` of a batch, see `batch`.
    """

    name: str
    kind: ClassVar[Kind]
    score_name: str
    takes_mixed: ClassVar[bool] = False

    def batch(self, batch: Any) -> Batch:
        """Brings a batch to normal form: a mapping with `inputs` and, where given, the other keys.

        Args:
            batch: a pair `(inputs, targets)`, a triple `(inputs, targets, index)`, bare inputs, a mapping
                in normal form, or a mapping of keyword inputs with the targets under `labels`.

        Returns:
            A new mapping: `inputs` (tensor, or mapping of keyword inputs), and where given `targets`,
            `index` [B], `mask`, `count`, `view` [B], and `mixed` where each sample is mixed with a partner
            (mixup, cutmix): `targets` of the partners, and `share` [B], the weight of the own target, 0..1.
        """
        if isinstance(batch, Tensor):
            return {"inputs": batch}
        if isinstance(batch, (tuple, list)):
            if not 1 <= len(batch) <= 3:
                raise RequestError(
                    f"a batch of {len(batch)} parts; needed (inputs,), (inputs, targets) "
                    "or (inputs, targets, index)",
                    fix='give a mapping: {"inputs": ..., "targets": ..., "index": ...}',
                )
            return dict(zip(("inputs", "targets", "index"), batch, strict=False))
        if not isinstance(batch, Mapping):
            raise RequestError(
                f"a batch of type {type(batch).__name__}; needed a tensor, (inputs, targets) or a mapping"
            )
        normal = dict(batch) if "inputs" in batch else self._from_keywords(batch)
        if "mixed" in normal and not self.takes_mixed:
            raise RequestError(
                f"mixed samples (mixup, cutmix) are for one class a sample; the task is {self.name}",
                fix='data.mix = "none"',
            )
        return normal

    def _from_keywords(self, batch: Mapping[str, Any]) -> Batch:
        normal: Batch = {key: batch[key] for key in RESERVED if key in batch and key not in ("inputs",)}
        inputs = {key: value for key, value in batch.items() if key not in (*RESERVED, *_TARGET_NAMES)}
        for key in _TARGET_NAMES:
            if key in batch:
                normal["targets"] = batch[key]
        if not inputs:
            raise RequestError(
                f"a batch with the keys {sorted(batch)} has no inputs", fix='name them "inputs"'
            )
        normal["inputs"] = inputs
        return normal

    def call(self, model: nn.Module, batch: Mapping[str, Any]) -> Any:
        """Runs a model on the inputs of a batch and returns the output that the task reads.

        A mapping of inputs enters as keywords, to each model only those that its forward declares.
        Floating inputs take the floating type of the model's parameters (a teacher file in half precision).
        """
        inputs = batch["inputs"]
        with part("student"):
            if isinstance(inputs, Mapping):
                return self.read(model(**declared(model, inputs)))
            return self.read(model(as_model_type(model, inputs)))

    def read(self, output: Any) -> Any:
        """The part of a model's return value that the task reads; logits of a Hugging Face output."""
        if isinstance(output, Tensor):
            return output
        if isinstance(output, Mapping) and "logits" in output:
            return output["logits"]
        logits = getattr(output, "logits", None)
        if isinstance(logits, Tensor):
            return logits
        if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
            return output[0]
        raise RequestError(
            f"the model returns {type(output).__name__}; the task {self.name} reads a tensor, "
            "an output with `logits`, or a tuple that starts with a tensor"
        )

    @abstractmethod
    def loss(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """The supervised loss, a scalar: a sum over targets divided by their `denominator`."""

    def labelled(self, targets: Any) -> Tensor:
        """Which of N samples have a target, [N] bool; all of them unless the task can leave some out."""
        return torch.ones(len(targets), dtype=torch.bool)

    @abstractmethod
    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """How many `samples` and `targets` (labelled samples, valid tokens) a batch has."""

    @abstractmethod
    def measure(self, output: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Statistics of each sample, leading dimension B; gathered over all samples for `score`."""

    @abstractmethod
    def score(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures over all samples from what `measure` gave, by name; holds `score_name`."""
