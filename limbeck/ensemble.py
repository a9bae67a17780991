"""Several networks as one: their mean prediction, or the boxes of several detectors pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses import mix_logits, widen
from limbeck.task import Classification, Task

Combining = Literal["probabilities", "logits", "vote"]


class Ensemble(nn.Module):
    """Networks for the same classes as one network; costs as much as all of them.

    Args:
        networks: at least one; called with the same inputs, each brings its own preprocessing.
        task: how inputs enter them; classification unless given.
        combining: `probabilities` log of the mean of softmax(z); `logits` mean of z; `vote` majority
            vote, see `majority_vote`.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        task: Task | None = None,
        combining: Combining = "probabilities",
    ) -> None:
        super().__init__()
        if not networks:
            raise RequestError("an ensemble of no networks; needed at least one")
        if combining not in _COMBINE:
            raise RequestError(f"combining {combining!r}; needed {', '.join(_COMBINE)}")
        self.networks = nn.ModuleList(networks)
        self.task = task or Classification()
        self.combining = combining

    def forward(self, inputs: Tensor | None = None, **keywords: Tensor) -> Tensor:
        """Answers one batch.

        Args:
            inputs: what the networks take, as one tensor.
            **keywords: in place of it, all the inputs that any of them declares.

        Returns:
            [B, K], whose largest entry is the prediction. For `probabilities` these are log
            probabilities, so a cross-entropy of them is that of the mean prediction.
        """
        batch = {"inputs": keywords if inputs is None else inputs}
        return combine([self.task.call(network, batch) for network in self.networks], self.combining)


def combine(logits: Sequence[Tensor], combining: Combining = "probabilities") -> Tensor:
    """One prediction from the logits of several networks, [B, K] each; see `Ensemble`."""
    counts = {each.shape[-1] for each in logits}
    if len(counts) > 1:
        raise RequestError(
            f"an ensemble of networks with {' and '.join(str(each.shape[-1]) for each in logits)} classes; "
            "all need the same classes"
        )
    return _COMBINE[combining](logits)


def _mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    return mix_logits(logits, temperature=1.0)


def _mean_logits(logits: Sequence[Tensor]) -> Tensor:
    return torch.stack([widen(each) for each in logits]).mean(0)


def majority_vote(logits: Sequence[Tensor]) -> Tensor:
    """Votes for each class, made unique: the largest entry is the winner.

    Ties go to the class with the smaller sum over networks of its rank (0 is a network's best), then to
    the lower class. A rank counts below any vote: votes - sum of ranks / (M K).

    Args:
        logits: of M networks, [B, K] each.

    Returns:
        [B, K], at most M.
    """
    stacked = torch.stack([widen(each) for each in logits])
    number, classes = len(logits), stacked.shape[-1]
    ranks = stacked.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    votes = (ranks == 0).sum(0)
    unique: Tensor = votes - ranks.sum(0) / (number * classes)
    return unique


_COMBINE: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "probabilities": _mean_probabilities,
    "logits": _mean_logits,
    "vote": majority_vote,
}


def disagreement(logits: Sequence[Tensor]) -> Tensor:
    """Share of samples on which two networks predict different classes, mean over pairs; a scalar 0 to 1.

    Args:
        logits: of at least two networks, [B, ..., K] each.
    """
    predicted = torch.stack([each.argmax(-1) for each in logits])
    first, second = torch.triu_indices(len(logits), len(logits), offset=1)
    return (predicted[first] != predicted[second]).float().mean()
