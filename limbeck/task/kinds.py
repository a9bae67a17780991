"""The built-in tasks: classes, labels, values, tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.task.base import Kind, Task
from limbeck.task.batches import denominator, num_samples


class Classification(Task):
    """One class a sample. Targets [B] int64 in 0..K-1; -1 marks an unlabelled sample.

    Args:
        classes: the class names, in the order of the outputs; their number alone; or None, not known.
    """

    kind: ClassVar[Kind] = "classes"
    takes_mixed: ClassVar[bool] = True
    score_name = "accuracy"
    name = "classification"

    def __init__(self, classes: Sequence[str] | int | None = None) -> None:
        self.classes = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes or [])
        self.num_classes = len(self.classes) or None

    def labelled(self, targets: Tensor) -> Tensor:
        """Those whose label is not negative."""
        return targets >= 0

    def _labels(self, output: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Targets and which samples are labelled; refuses shapes and labels that do not fit the output."""
        targets = _targets(batch)
        if output.ndim != 2 or targets.shape != output.shape[:1]:
            raise RequestError(
                f"outputs {tuple(output.shape)} and targets {tuple(targets.shape)}; "
                "classification needs outputs [B, K] and targets [B]"
            )
        return targets, self.labelled(targets)

    def loss(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Cross-entropy, mean over the labelled samples; 0 with zero gradient when there is none.

        Of mixed samples `share` times that of the own target and 1 - `share` times that of the partner's,
        each a mean over those that have a label. (A batch and the partners in it have equally many.)
        """
        mixed = batch.get("mixed")
        if mixed is None:
            return self._cross_entropy(output, batch)
        own = self._cross_entropy(output, batch, mixed["share"])
        return own + self._cross_entropy(output, {**batch, "targets": mixed["targets"]}, 1 - mixed["share"])

    def _cross_entropy(
        self, output: Tensor, batch: Mapping[str, Any], weight: Tensor | None = None
    ) -> Tensor:
        """The mean over labelled samples, each times its weight [B]."""
        targets, labelled = self._labels(output, batch)
        kind: Literal["sum", "none"] = "sum" if weight is None else "none"
        each = F.cross_entropy(_wide(output), targets.clamp(min=-1), ignore_index=-1, reduction=kind)
        summed = each if weight is None else (each * weight).sum()
        return summed / _at_least_one(denominator(batch, "targets", labelled.sum()))

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """`samples`: B; `targets`: the labelled ones."""
        targets = batch.get("targets")
        samples = float(num_samples(batch))
        return {
            "samples": samples,
            "targets": 0.0 if targets is None else float(self.labelled(targets).sum()),
        }

    def measure(self, output: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`target` [B], `predicted` [B], its probability `confidence` [B], and `negative_log_likelihood` [B].

        The last is 0 where there is no label.
        """
        targets, _ = self._labels(output, batch)
        logits = _wide(output)
        nll = F.cross_entropy(logits, targets.clamp(min=-1), ignore_index=-1, reduction="none")
        return {
            "target": targets,
            "predicted": output.argmax(1),
            "confidence": logits.softmax(1).amax(1),
            "negative_log_likelihood": nll,
        }

    def score(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """`accuracy` (0..1) and mean `loss` over the labelled samples."""
        labelled = self.labelled(statistics["target"])
        number = int(labelled.sum())
        if number == 0:
            raise RequestError(
                "no sample has a label, so there is no accuracy", fix="give labels to the split"
            )
        right = (statistics["predicted"] == statistics["target"])[labelled].sum()
        loss = statistics["negative_log_likelihood"][labelled].double().mean()
        return {"accuracy": int(right) / number, "loss": float(loss)}


class MultiLabel(Task):
    """Several independent labels a sample. Targets [B, C] of 0 and 1; a row of -1 is unlabelled.

    Args:
        classes: label names in the order of the outputs, or their number.
    """

    kind: ClassVar[Kind] = "labels"
    score_name = "exact_match"
    name = "multi-label classification"

    def labelled(self, targets: Tensor) -> Tensor:
        """Those without a negative entry."""
        return (targets >= 0).all(1)

    def __init__(self, classes: Sequence[str] | int | None = None) -> None:
        self.classes = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes or [])
        self.num_classes = len(self.classes) or None

    def loss(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Binary cross-entropy, summed over labels, mean over the labelled samples ("batchmean")."""
        targets = _same_shape(output, _targets(batch))
        labelled = self.labelled(targets)
        each = F.binary_cross_entropy_with_logits(
            _wide(output), targets.clamp(min=0).to(_wide(output).dtype), reduction="none"
        ).sum(1)
        return (each * labelled).sum() / _at_least_one(denominator(batch, "targets", labelled.sum()))

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """`samples`: B; `targets`: the labelled ones."""
        targets = batch.get("targets")
        number = 0.0 if targets is None else float(self.labelled(targets).sum())
        return {"samples": float(num_samples(batch)), "targets": number}

    def measure(self, output: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`target` [B, C] and `predicted` [B, C] (logit above 0)."""
        return {"target": _same_shape(output, _targets(batch)).long(), "predicted": (output > 0).long()}

    def score(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """`exact_match` (all labels of a sample right) and `label_accuracy`, both 0..1."""
        labelled = self.labelled(statistics["target"])
        same = (statistics["predicted"] == statistics["target"])[labelled].double()
        if not len(same):
            raise RequestError("no sample has labels, so there is no score", fix="give labels to the split")
        return {"exact_match": float(same.prod(1).mean()), "label_accuracy": float(same.mean())}


class Regression(Task):
    """Real-valued outputs. Targets [B] or [B, D] in normalised units; NaN rows are unlabelled."""

    kind: ClassVar[Kind] = "values"
    score_name = "r2"
    name = "regression"

    def labelled(self, targets: Tensor) -> Tensor:
        """Those without a NaN."""
        return ~_rows(targets).isnan().any(1)

    def loss(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Squared error, mean over values and the labelled samples."""
        targets = _same_shape(output, _rows(_targets(batch)))
        labelled = self.labelled(targets)
        each = (_wide(output) - targets.nan_to_num()).square().mean(1)
        return (each * labelled).sum() / _at_least_one(denominator(batch, "targets", labelled.sum()))

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """`samples`: B; `targets`: the labelled ones."""
        targets = batch.get("targets")
        number = 0.0 if targets is None else float(self.labelled(targets).sum())
        return {"samples": float(num_samples(batch)), "targets": number}

    def measure(self, output: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`target` and `predicted`, [B, D] each."""
        return {"target": _same_shape(output, _rows(_targets(batch))), "predicted": output}

    def score(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """`r2` (1 is perfect, 0 the mean as a guess) and `mean_squared_error`."""
        target, predicted = statistics["target"].double(), statistics["predicted"].double()
        labelled = self.labelled(target)
        target, predicted = target[labelled], predicted[labelled]
        error = (predicted - target).square().mean()
        spread = (target - target.mean(0)).square().mean()
        return {"r2": float(1 - error / spread.clamp(min=1e-12)), "mean_squared_error": float(error)}


class Tokens(Task):
    """One class a position. Outputs [B, L, V], targets [B, L]; -100 marks positions that do not count.

    Args:
        causal: position i is judged against target i + 1, as in language models (outputs and targets are
            those of the same positions then).
    """

    kind: ClassVar[Kind] = "tokens"
    score_name = "token_accuracy"
    name = "tokens"

    def __init__(self, *, causal: bool = False) -> None:
        self.causal = causal

    def labelled(self, targets: Tensor) -> Tensor:
        """Those with a position that counts."""
        return (targets != -100).any(1)

    def positions(self, output: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs [B, L', V], targets [B, L'] and mask [B, L'] (true = counts), shifted where causal."""
        targets = _targets(batch)
        if output.ndim != 3 or targets.shape != output.shape[:2]:
            raise RequestError(
                f"outputs {tuple(output.shape)} and targets {tuple(targets.shape)}; "
                "tokens need outputs [B, L, V] and targets [B, L]"
            )
        mask = targets != -100
        if "mask" in batch:
            mask = mask & batch["mask"].bool()
        if self.causal:
            return output[:, :-1], targets[:, 1:], mask[:, 1:]
        return output, targets, mask

    def loss(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Cross-entropy, mean over the valid positions of the whole batch; padding may hold anything."""
        logits, targets, mask = self.positions(output, batch)
        summed = F.cross_entropy(_wide(logits[mask]), targets[mask], reduction="sum")
        return summed / _at_least_one(denominator(batch, "targets", mask.sum()))

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """`samples`: B; `targets`: the positions that count; `sequences`: the samples that have one."""
        targets, mask = batch.get("targets"), batch.get("mask")
        if targets is not None:
            mask = targets != -100 if mask is None else (targets != -100) & mask.bool()
        if mask is None:
            samples = float(num_samples(batch))
            return {"samples": samples, "targets": 0.0, "sequences": samples}
        valid = (mask[:, 1:] if self.causal else mask).bool()
        sequences = float(valid.any(1).sum())
        return {"samples": float(len(mask)), "targets": float(valid.sum()), "sequences": sequences}

    def measure(self, output: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Per sample: `right`, `tokens` and `negative_log_likelihood`, [B] each, summed over positions."""
        logits, targets, mask = self.positions(output, batch)
        safe = targets.masked_fill(~mask, -100)
        nll = F.cross_entropy(_wide(logits).transpose(1, 2), safe, ignore_index=-100, reduction="none")
        nll = nll.masked_fill(~mask, 0)
        right = (logits.argmax(2) == targets) & mask
        return {"right": right.sum(1), "tokens": mask.sum(1), "negative_log_likelihood": nll.sum(1)}

    def score(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """`token_accuracy` (0..1) and mean `loss` over the valid positions."""
        tokens = int(statistics["tokens"].sum())
        if tokens == 0:
            raise RequestError("no position counts, so there is no score", fix="give targets to the split")
        loss = float(statistics["negative_log_likelihood"].double().sum()) / tokens
        return {"token_accuracy": int(statistics["right"].sum()) / tokens, "loss": loss}


def _targets(batch: Mapping[str, Any]) -> Tensor:
    targets = batch.get("targets")
    if targets is None:
        raise RequestError(
            f"the batch has no targets; it holds {', '.join(sorted(batch))}",
            fix='add "targets", or use a method and stage that need no labels',
        )
    return cast(Tensor, targets)


def _wide(value: Tensor) -> Tensor:
    """Half precision to float32; CPU autocast would keep the softmax in bfloat16."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _rows(value: Tensor) -> Tensor:
    return value.unsqueeze(1) if value.ndim == 1 else value


def _same_shape(output: Tensor, targets: Tensor) -> Tensor:
    if output.shape != targets.shape:
        raise RequestError(
            f"outputs {tuple(output.shape)} and targets {tuple(targets.shape)} must have one shape"
        )
    return targets


def _at_least_one(count: float | Tensor) -> float | Tensor:
    """A count to divide by: a sum over nothing is 0, so its mean is 0 too."""
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1e-12)
