"""How LSHFM compares features: its variants, its settings by kind of task, its figures by sample."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.dataset import Dataset
from limbeck.data.loader import batch_sizes
from limbeck.errors import RequestError
from limbeck.losses import check_finite, feature_error, hash_error, widen
from limbeck.methods._agreement import check_choice
from limbeck.methods._embedding import Found
from limbeck.methods._penultimate import vector
from limbeck.task import Task, move
from limbeck.teacher import Teacher

Variant = Literal["lshl2", "lshl2_s", "lsh", "lsh_s", "l2", "l1", "l2_norm", "hash_l2", "hash_l1"]
Bias = Literal["median", "mean", "zero"]

_BATCH = 256  # samples a forward while the bias is fitted

#: Those with a term on features, and those with a term on hash values.
_FEATURES = ("lshl2", "lshl2_s", "l2", "l1", "l2_norm")
_HASHES = ("lshl2", "lshl2_s", "lsh", "lsh_s", "hash_l2", "hash_l1")
#: Those that leave out what the teacher gets wrong.
FILTERED = ("lshl2_s", "lsh_s")


class Paper(NamedTuple):
    """Settings in force where the caller gives none.

    Args:
        beta: weight of the mimicking.
        num_hashes: N; None is 32 D_t.
        two_stages: the embedding is trained alone first.
    """

    beta: float
    num_hashes: int | None
    two_stages: bool


def paper_of(task: Task) -> Paper:
    """The settings for CIFAR-100; of several labels a sample those for VOC07."""
    return Paper(0.5, 2048, two_stages=True) if task.kind == "labels" else Paper(6.0, None, two_stages=False)


def variant_of(given: Variant | None, found: Found, task: Task) -> Variant:
    """The variant as given; else `lshl2_s` where the teacher can be compared with labels, and `lshl2`.

    Raises:
        RequestError: there is none of the name, or it reads a teacher's class that is no class of the task.
    """
    own, other = found.outputs
    comparable = task.kind == "classes" and own == other
    if given is None:
        return "lshl2_s" if comparable else "lshl2"
    check_choice("variant", given, get_args(Variant))
    if given in FILTERED and not comparable:
        said = "no classifier" if other is None else f"{other} outputs"
        raise RequestError(
            f"{given} mimics the samples that the teacher classifies as labelled; the task has {task.kind}, "
            f"the student {own} outputs and the teacher {said}",
            fix=f'variant = "{given.removesuffix("_s")}", which reads features alone',
        )
    return given


def check_settings(*, two_stages: bool, align_beta: float | None, align_statistics: bool) -> None:
    """Refuses settings of a stage that there is not."""
    if not two_stages and (align_beta is not None or align_statistics):
        raise RequestError(
            "align_beta and align_statistics are of the first of two stages", fix="two_stages = true"
        )


def check_embedded(two_stages: bool, embedded: bool) -> None:
    """Refuses a first stage that has nothing to train."""
    if two_stages and not embedded:
        raise RequestError(
            "two_stages trains an embedding first, and force_embedding = false leaves it out",
            fix="leave force_embedding out",
        )


def check_soft(found: Found, soft_weight: float) -> None:
    """Refuses a soft term between unlike outputs."""
    own, other = found.outputs
    if soft_weight > 0 and own != other:
        said = "no classifier" if other is None else f"{other} outputs"
        raise RequestError(
            f"soft_weight {soft_weight:g} compares outputs; the student has {own} and the teacher {said}",
            fix="soft_weight = 0 mimics features alone, whatever the classes",
        )


def check_std(given: float | None, found: Found, variant: Variant) -> float:
    """The deviation of the hyperplanes: as given, else of the weights of the teacher's classifier."""
    if variant not in _HASHES:
        _check_unread("std", given, variant)
        return 1.0  # of no hyperplane
    std = found.std if given is None else given
    if std is None:
        raise RequestError(
            "the hyperplanes take their width from the teacher's classifier, and the teacher has none",
            fix="std = 0.06",
        )
    if not 0 < std < float("inf"):
        whose = "of the teacher's classifier " if given is None else ""
        raise RequestError(f"std {whose}{std}; needed a number above 0", fix="std = 0.06")
    return std


def check_number(given: int | None, paper: Paper, width: int, variant: Variant) -> int:
    """The number of hyperplanes: as given, else the paper's for features of a width; 0 where none is read."""
    if variant not in _HASHES:
        _check_unread("num_hashes", given, variant)
        return 0
    number = (paper.num_hashes or 32 * width) if given is None else given
    if number < 1:
        raise RequestError(f"num_hashes {number}; needed at least 1")
    return number


def _check_unread(name: str, given: float | None, variant: Variant) -> None:
    if given is not None:
        raise RequestError(f"{name} {given} with the variant {variant}, which has no hyperplanes")


class Features(NamedTuple):
    """Features of a batch and their hash values, in float32 or wider.

    Args:
        own, target: f_s and f_t, [B, D].
        hashes, target_hashes: u_s and u_t, [B, N]; N = 0 where the variant reads none.
    """

    own: Tensor
    target: Tensor
    hashes: Tensor
    target_hashes: Tensor


def errors_of(variant: Variant, features: Features) -> dict[str, Tensor]:
    """The terms of a variant by sample, [B] each: `feature`, `hash`."""
    errors: dict[str, Tensor] = {}
    own, target = widen(features.own), widen(features.target.detach())
    if variant == "l1":
        errors["feature"] = (own - target).abs().mean(1)
    elif variant == "l2_norm":
        errors["feature"] = feature_error(_unit(own), _unit(target), "none")
    elif variant in _FEATURES:
        errors["feature"] = feature_error(own, target, "none")
    hashes, goal = features.hashes, features.target_hashes.detach()
    if variant == "hash_l2":
        errors["hash"] = (hashes - goal).square().mean(1)
    elif variant == "hash_l1":
        errors["hash"] = (hashes - goal).abs().mean(1)
    elif variant in _HASHES:
        errors["hash"] = hash_error(hashes, goal)
    return errors


@torch.no_grad()
def figures_of(features: Features) -> dict[str, Tensor]:
    """How near the student is: mean cosine, mean ratio of lengths, share of equal bits."""
    own, target = widen(features.own), widen(features.target)
    lengths = own.norm(dim=1), target.norm(dim=1).clamp(min=1e-12)
    figures = {
        "cosine": F.cosine_similarity(own, target, dim=1).mean(),
        "norm_ratio": (lengths[0] / lengths[1]).mean(),
    }
    if features.hashes.shape[1]:
        same = (features.hashes > 0) == (features.target_hashes > 0)
        figures["bit_agreement"] = same.to(own.dtype).mean()
    return figures


def _unit(value: Tensor) -> Tensor:
    """Rows of length 1; shorter ones than 1e-12 are divided by that."""
    return F.normalize(value, dim=1, eps=1e-12)


def features_over(data: Dataset, teacher: Teacher, path: str, task: Task, device: torch.device) -> Tensor:
    """What a teacher has at a layer for every sample of a set, [n, D]; in view 1 where there are views.

    Raises:
        RequestError: there is no sample.
        RunError: a feature is not finite.
    """
    if len(data) == 0:
        raise RequestError("no sample, and the bias of the hyperplanes is taken over the training set")
    view, found = 1 if data.augmented else 0, []
    sizes = batch_sizes(len(data), _BATCH)
    for places in torch.split(torch.arange(len(data)), sizes):
        batch = move(task.batch(data.batch(places, view)), device)
        value = widen(vector(teacher(batch, output=False)[path], f"teacher {path!r}"))
        check_finite(value, f"teacher features at {path!r}")
        found.append(value)
    return torch.cat(found)
