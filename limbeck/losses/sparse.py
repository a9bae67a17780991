"""Divergences to a teacher of which only the k largest logits of each sample were kept.

Legend: v_i kept logits, L = log of the sum of exp(v / T) over all classes, p_i = exp(v_i / T - L),
p_rest the mass of the dropped classes, n = K - k their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.checks import check_temperature
from limbeck.losses.reductions import Count, Reduction, reduce_samples, widen
from limbeck.losses.soft import decoupled_terms, kl_divergence, log_probabilities, standardize

Rest = Literal["bucket", "uniform", "renormalize"]


@dataclass(frozen=True)
class TopK:
    """The k largest logits of each row, with the mass of the others kept.

    Args:
        index: classes that were kept, [..., k] int64.
        value: their logits, [..., k].
        log_rest: logsumexp of the dropped logits / T, [..., one entry a temperature]; -inf where k = K.
        temperatures: the T of each entry of `log_rest`.
        num_classes: K.
        mean, deviation: over all K logits of a row, [...]; only standardisation needs them.
        log_rest_standardized: as `log_rest`, of standardised logits.
        population: which deviation was stored, see `standardize`.
    """

    index: Tensor
    value: Tensor
    log_rest: Tensor
    temperatures: tuple[float, ...]
    num_classes: int
    mean: Tensor | None = None
    deviation: Tensor | None = None
    log_rest_standardized: Tensor | None = None
    population: bool = False

    def __post_init__(self) -> None:
        if self.index.shape != self.value.shape:
            raise RequestError(
                f"top-k index {tuple(self.index.shape)} and value {tuple(self.value.shape)} differ in shape"
            )
        _check_k(self.index.shape[-1], self.num_classes)
        expected = (*self.index.shape[:-1], len(self.temperatures))
        if tuple(self.log_rest.shape) != expected:
            raise RequestError(
                f"log_rest {tuple(self.log_rest.shape)} for {len(self.temperatures)} temperatures; "
                f"needed {expected}, one entry a row and temperature"
            )

    @property
    def shape(self) -> torch.Size:
        """The shape of the full logits, [..., K]."""
        return torch.Size((*self.index.shape[:-1], self.num_classes))

    def select(self, mask: Tensor) -> TopK:
        """The rows where `mask`, a boolean over the leading axes, is true: [N, k]."""
        return replace(self, **{name: value[mask] for name, value in self._tensors().items()})

    def to(self, device: torch.device | str) -> TopK:
        """The same values on a device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def standardized(self, *, population: bool = False, epsilon: float = 1e-7) -> TopK:
        """The k largest of the standardised logits, see `standardize`.

        Raises:
            RequestError: mean, deviation and rest mass of the standardised logits were not stored.
        """
        if self.mean is None or self.deviation is None or self.log_rest_standardized is None:
            raise RequestError(
                "standardisation needs mean, deviation and log_rest_standardized of the full rows, "
                "and these top-k targets were stored without them",
                fix="store them with top_k(..., standardized=True)",
            )
        if population != self.population:
            raise RequestError(
                f"these top-k targets were stored with population={self.population}, "
                f"and population={population} was asked for"
            )
        mean, deviation = widen(self.mean).unsqueeze(-1), widen(self.deviation).unsqueeze(-1)
        value = (widen(self.value) - mean) / (epsilon + deviation)
        return TopK(self.index, value, self.log_rest_standardized, self.temperatures, self.num_classes)

    def log_probabilities(self, temperature: float, *, extrapolate: bool = False) -> tuple[Tensor, Tensor]:
        """Log probabilities of the kept classes [..., k] and of all others together [...].

        Args:
            temperature: T, one of the stored ones.
            extrapolate: for another T, take log n + (log_rest(1) - log n) / T as the rest: exact where the
                dropped logits are equal, an upper bound on the rest mass for T > 1. Needs T = 1 stored.
        """
        top, rest = widen(self.value) / temperature, self.log_rest_at(temperature, extrapolate=extrapolate)
        total = torch.logaddexp(top.logsumexp(-1), rest)
        return top - total.unsqueeze(-1), rest - total

    def log_rest_at(self, temperature: float, *, extrapolate: bool = False) -> Tensor:
        """Logsumexp of the dropped logits / T, [...]; see `log_probabilities`.

        Raises:
            RequestError: T was not stored, and `extrapolate` is false or T = 1 was not stored either.
        """
        check_temperature(temperature)
        if temperature in self.temperatures:
            return widen(self.log_rest[..., self.temperatures.index(temperature)])
        stored = ", ".join(f"{each:g}" for each in self.temperatures)
        if not extrapolate:
            raise RequestError(
                f"the rest mass at temperature {temperature:g} was not stored with the top-k targets; "
                f"stored: {stored}",
                fix="extrapolate=True" if 1.0 in self.temperatures else f"temperature = {stored}",
            )
        if 1.0 not in self.temperatures:
            raise RequestError(
                f"extrapolation starts from temperature 1, which was not stored; stored: {stored}"
            )
        number = self.num_classes - self.index.shape[-1]
        if number == 0:
            return widen(self.log_rest[..., 0])
        at_one = widen(self.log_rest[..., self.temperatures.index(1.0)])
        return math.log(number) + (at_one - math.log(number)) / temperature


def top_k(
    logits: Tensor,
    k: int,
    temperatures: Sequence[float],
    *,
    keep: Tensor | None = None,
    standardized: bool = False,
    population: bool = False,
) -> TopK:
    """Keeps the k largest logits of each row and the mass of the others.

    Args:
        logits: [..., K].
        k: 1 to K.
        temperatures: at which the mass of the dropped classes is stored.
        keep: classes to keep in any case, [...] int64: the labels, which decoupled distillation needs.
        standardized: store what standardisation needs too.
        population: its deviation, see `standardize`.
    """
    _check_k(k, logits.shape[-1])
    logits = widen(logits)
    order = logits if keep is None else logits.scatter(-1, keep.unsqueeze(-1), math.inf)
    index = order.topk(k, dim=-1).indices

    def log_rest(values: Tensor) -> Tensor:
        dropped = values.scatter(-1, index, -math.inf)
        return torch.stack([(dropped / each).logsumexp(-1) for each in temperatures], dim=-1)

    kept = TopK(index, logits.gather(-1, index), log_rest(logits), tuple(temperatures), logits.shape[-1])
    if not standardized:
        return kept
    return replace(
        kept,
        mean=logits.mean(-1),
        deviation=logits.std(-1, correction=0 if population else 1),
        log_rest_standardized=log_rest(standardize(logits, population=population)),
        population=population,
    )


def sparse_divergence(
    student: Tensor,
    teacher: TopK,
    temperature: float,
    reduction: Reduction = "batchmean",
    *,
    rest: Rest = "bucket",
    extrapolate: bool = False,
    count: Count = None,
) -> Tensor:
    """T^2 KL to a teacher of which only the k largest logits are known; the student's softmax is full.

    Args:
        student: logits, [B, K] (or [B, ..., K]).
        teacher: the kept logits, leading axes as the student's.
        temperature: T > 0, one that was stored (see `extrapolate`).
        reduction: over samples, see `reduce_samples`.
        rest: what is done with the dropped classes. `bucket`: they are one class, the "dustbin" of Hinton
            et al. 2015; never above the full KL, its gradient is (T / B)(q_i - p_i) on the kept classes.
            `uniform`: p_rest / n each; pulls the tail flat. `renormalize`: left out, the kept ones scaled
            to sum to 1; biased, it pushes the tail to 0, and large at high T.
        extrapolate: allows another T, see `TopK.log_probabilities`.
        count: number of samples to divide by, where a loop counts them.

    Returns:
        A scalar, or [B, ...] for `none`. With k = K all three equal the full KL. At student = teacher 0
        for `bucket` alone.
    """
    check_rest(rest)
    if rest == "bucket":
        predicted, target = _buckets(student, teacher, temperature, extrapolate)
        divergence = kl_divergence(target, predicted)
    else:
        divergence = _without_bucket(student, teacher, temperature, rest, extrapolate)
    return reduce_samples(temperature**2 * divergence, reduction, width=teacher.num_classes, count=count)


def sparse_decoupled_terms(
    student: Tensor, teacher: TopK, targets: Tensor, temperature: float, *, extrapolate: bool = False
) -> tuple[Tensor, Tensor]:
    """`decoupled_terms` to a top-k teacher: over the kept classes and the others together as one class.

    Args:
        student: logits, [B, K].
        teacher: the kept logits, the target's among them.
        targets: [B] int64 in 0..K-1.
        temperature: T > 0, one that was stored (see `extrapolate`).
        extrapolate: allows another T, see `TopK.log_probabilities`.

    Returns:
        (target, non_target), [B] each, T^2 inside; 0 at student = teacher.
    """
    places = teacher.index == targets.unsqueeze(-1)
    if not bool(places.any(-1).all()):
        raise RequestError(
            "decoupled distillation needs the target's logit, and for some samples it is not among the "
            f"{teacher.index.shape[-1]} kept ones",
            fix="keep the labels: top_k(..., keep=targets)",
        )
    predicted, target = _buckets(student, teacher, temperature, extrapolate)
    own = places.int().argmax(-1)
    return decoupled_terms(temperature * predicted, temperature * target, own, temperature)


def _buckets(student: Tensor, teacher: TopK, temperature: float, extrapolate: bool) -> tuple[Tensor, Tensor]:
    """Log probabilities of student and teacher over the kept classes and, last, the others together."""
    predicted = _student_logs(student, teacher, temperature)
    kept = predicted.gather(-1, teacher.index)
    top, rest = teacher.log_probabilities(temperature, extrapolate=extrapolate)
    if teacher.index.shape[-1] == teacher.num_classes:
        return kept, top
    others = predicted.scatter(-1, teacher.index, -math.inf).logsumexp(-1, keepdim=True)
    return torch.cat((kept, others), -1), torch.cat((top, _finite(rest).unsqueeze(-1)), -1)


def _without_bucket(
    student: Tensor, teacher: TopK, temperature: float, rest: Rest, extrapolate: bool
) -> Tensor:
    predicted = _student_logs(student, teacher, temperature)
    kept = predicted.gather(-1, teacher.index)
    top, log_rest = teacher.log_probabilities(temperature, extrapolate=extrapolate)
    number = teacher.num_classes - teacher.index.shape[-1]
    if rest == "renormalize" or number == 0:
        return kl_divergence(F.log_softmax(top, -1), kept)
    tail = predicted.scatter(-1, teacher.index, 0.0).sum(-1) / number
    return kl_divergence(top, kept) + log_rest.exp() * (_finite(log_rest) - math.log(number) - tail)


def _student_logs(student: Tensor, teacher: TopK, temperature: float) -> Tensor:
    if student.shape != teacher.shape:
        raise RequestError(
            f"student logits {tuple(student.shape)} and top-k targets of logits {tuple(teacher.shape)}; "
            "both must have one shape"
        )
    return log_probabilities(student, temperature)


def _finite(logs: Tensor) -> Tensor:
    """-inf, the log of no mass at all, as a number so low that its exponential is 0: 0 * log 0 = 0."""
    return logs.clamp(min=-1e30)


def check_rest(rest: str) -> None:
    """Refuses an unknown treatment of the dropped classes."""
    if rest not in ("bucket", "uniform", "renormalize"):
        raise RequestError(f"rest {rest!r}; needed bucket, uniform or renormalize")


def _check_k(k: int, num_classes: int) -> None:
    if not 1 <= k <= num_classes:
        raise RequestError(f"top-k with k = {k} of {num_classes} classes; needed 1 to {num_classes}")
