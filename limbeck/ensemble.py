"""Several networks as one: their mean prediction, or the boxes of several detectors pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def pool_boxes(
    detections: Sequence[Mapping[str, Tensor]], *, threshold: float = 0.5, fusion: bool = False
) -> dict[str, Tensor]:
    """The boxes that several detectors found in one image, as one detector's.

    Class by class, boxes that overlap more than `threshold` (intersection over union) are one object. By
    default the one with the best score stays (non-maximum suppression). With `fusion` they are averaged by
    score, and the mean score is multiplied by min(number of boxes, M) / M, so what one of M detectors found
    alone counts less (weighted box fusion, Solovyev et al. 2021).

    Args:
        detections: of M detectors, each `boxes` [N, 4] as (left, top, right, bottom), `scores` [N] and
            `labels` [N]; N may differ.
        threshold: 0 to 1.
        fusion: average in place of suppressing.

    Returns:
        The same three, by falling score; equal scores in the order given.
    """
    if not detections:
        raise RequestError("boxes of no detectors; needed at least one")
    boxes, scores, labels = (
        torch.cat([each[name] for each in detections]) for name in ("boxes", "scores", "labels")
    )
    order = scores.argsort(dim=0, descending=True, stable=True)
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    groups = _groups(boxes, scores, labels, threshold, moving=fusion)
    first = [group[0] for group in groups]
    if not fusion:
        return {"boxes": boxes[first], "scores": scores[first], "labels": labels[first]}
    fused = [_average(boxes[group], scores[group]) for group in groups]
    share = [min(len(group), len(detections)) / len(detections) for group in groups]
    mean = [scores[group].mean() * part for group, part in zip(groups, share, strict=True)]
    found = {
        "boxes": torch.stack(fused) if fused else boxes,
        "scores": torch.stack(mean) if mean else scores,
        "labels": labels[first],
    }
    order = found["scores"].argsort(dim=0, descending=True, stable=True)
    return {name: value[order] for name, value in found.items()}


def _groups(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, *, moving: bool
) -> list[list[int]]:
    """Positions of the boxes of each object, best first; `moving`: compared with the average so far."""
    groups: list[list[int]] = []
    places, kinds = torch.empty_like(boxes), torch.empty_like(labels)
    for position, box in enumerate(boxes):
        number = len(groups)
        overlaps = _overlaps(box, places[:number]) * (kinds[:number] == labels[position])
        best = int(overlaps.argmax()) if number else 0
        if number == 0 or overlaps[best] <= threshold:
            groups.append([position])
            places[number], kinds[number] = box, labels[position]
            continue
        groups[best].append(position)
        if moving:
            places[best] = _average(boxes[groups[best]], scores[groups[best]])
    return groups


def _average(boxes: Tensor, scores: Tensor) -> Tensor:
    return (scores.unsqueeze(1) * boxes).sum(0) / scores.sum().clamp(min=1e-12)


def _overlaps(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of a box [4] with others [N, 4]; 0 for boxes without area."""
    sides = torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
    shared = sides.clamp(min=0).prod(1)
    whole = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared
    return shared / whole.clamp(min=1e-12)
