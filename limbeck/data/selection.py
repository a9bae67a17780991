"""Choosing samples: class-balanced labels and subsets, and stratified splits, by seed and sample identity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck.data import counter
from limbeck.data.dataset import Dataset
from limbeck.errors import RequestError


def keep_labels(dataset: Dataset, number: int | None, seed: int) -> Dataset:
    """The same samples, of which only some keep their label: equally many of every class.

    For one seed a smaller number keeps a part of what a larger one keeps (up to the last, uneven sample of
    a class).

    Args:
        dataset: the samples with their labels.
        number: labels to keep in all; None or 0 keeps every label.
        seed: of the choice.

    Returns:
        A data set of equal length; the other targets are -1 (NaN for real values).
    """
    if not number:
        return dataset
    targets = dataset.targets()
    kept = torch.zeros(len(dataset), dtype=torch.bool)
    kept[balanced(targets, number, seed, dataset.index(), "data.labels")] = True
    missing = torch.nan if targets.is_floating_point() else -1
    shaped = kept.reshape(-1, *[1] * (targets.ndim - 1))
    return dataset.with_targets(torch.where(shaped, targets, torch.full_like(targets, missing)))


def limited(dataset: Dataset, number: int | None, seed: int) -> Dataset:
    """A class-balanced part of a set, in the order of the set; None or 0 is all of it.

    Where some samples have no label, the part is drawn from all samples alike.
    """
    if not number:
        return dataset
    targets, index = dataset.targets(), dataset.index()
    if not bool(is_labelled(targets).all()):
        targets = torch.zeros(len(dataset))
    return dataset.subset(balanced(targets, number, seed, index, "data.limit"))


def balanced(targets: Tensor, number: int, seed: int, index: Tensor, asked_by: str) -> Tensor:
    """Positions of `number` labelled samples, equally many of every class; sorted int64 [number].

    A class that has fewer gives all, the others make up for it. Real values count as one class. Within a
    class the choice is a pure function of seed and sample identity.

    Args:
        targets: [N] or [N, ...].
        number: how many to choose.
        seed: of the choice.
        index: identities, int64 [N].
        asked_by: the option that messages name.
    """
    groups = _by_class(targets, counter.bits("balanced", seed, index))
    available = sum(len(group) for group in groups)
    if number > available or number < len(groups):
        raise RequestError(
            f"{asked_by} = {number}: training has {available} labelled samples of {len(groups)} classes",
            fix=f"a number from {len(groups)} to {available}, or leave it out for all",
        )
    sizes = _equal_shares([len(group) for group in groups], number)
    return torch.cat([group[:size] for group, size in zip(groups, sizes, strict=True)]).sort().values


def split(targets: Tensor, shares: Mapping[str, float], seed: int, index: Tensor) -> dict[str, Tensor]:
    """Draws parts out of a set, each with the same share of every class; the rest is `train`.

    Every class keeps at least one sample in training, so a class of one stays there; of two or more at
    least one goes to the first part that is drawn. Samples without a label stay in training.

    Args:
        targets: [N] or [N, ...].
        shares: by name of the part, 0..1; drawn in this order.
        seed: of the choice.
        index: identities, int64 [N].

    Returns:
        Sorted positions by name, `train` first.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in shares}
    left = torch.ones(len(targets), dtype=torch.bool)
    for group in _by_class(targets, counter.bits("split", seed, index)):
        start = 0
        for name, share in shares.items():
            wanted = max(round(share * len(group)), 1) if share > 0 else 0
            size = min(wanted, max(len(group) - start - 1, 0))
            parts[name].append(group[start : start + size])
            start += size
        left[group[:start]] = False
    drawn = {name: torch.cat(found).sort().values for name, found in parts.items() if found}
    return {"train": left.nonzero().squeeze(1), **drawn}


def is_labelled(targets: Tensor) -> Tensor:
    """Which samples have a target; bool [N]."""
    present = ~targets.isnan() if targets.is_floating_point() else targets >= 0
    return present.flatten(1).all(1) if present.ndim > 1 else present


def _by_class(targets: Tensor, order: Tensor) -> list[Tensor]:
    """Positions of each class's samples in a given order; of all labelled ones where there are no classes."""
    labelled = is_labelled(targets)
    kinds = targets if targets.ndim == 1 and not targets.is_floating_point() else torch.zeros(len(targets))
    groups = []
    for kind in torch.unique(kinds[labelled]):
        members = ((kinds == kind) & labelled).nonzero().squeeze(1)
        groups.append(members[order[members].argsort(stable=True)])
    return groups


def _equal_shares(available: list[int], number: int) -> list[int]:
    """As even a distribution of `number` as the groups can give; what is uneven goes to the first."""
    shares = [0] * len(available)
    while (missing := number - sum(shares)) > 0:
        open_groups = [i for i, size in enumerate(available) if shares[i] < size]
        each, uneven = divmod(missing, len(open_groups))
        for place, group in enumerate(open_groups):
            shares[group] = min(available[group], shares[group] + each + (place < uneven))
    return shares
