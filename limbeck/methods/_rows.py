"""Outputs as rows: one a sample, or a valid position of a sequence; and values by row as a scalar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import (
    TopK,
    bernoulli_divergence,
    reduce_samples,
    reduce_tokens,
    softened_divergence,
    sparse_divergence,
    squared_error,
    widen,
)
from limbeck.losses.reductions import Reduction, TokenReduction
from limbeck.task import Task, Tokens, denominator

RowReduction = Literal["batchmean", "sum", "mean", "token_mean", "sequence_mean"]
#: What each kind of output can be reduced by; the first is the usual one.
REDUCTIONS: dict[str, tuple[RowReduction, ...]] = {
    "classes": ("batchmean", "sum", "mean"),
    "labels": ("batchmean", "sum", "mean"),
    "values": ("batchmean", "sum"),
    "tokens": ("token_mean", "sequence_mean", "batchmean", "sum"),
}


class Rows(NamedTuple):
    """What is compared, row by row.

    Args:
        student: [N, K].
        teachers: an entry a teacher, [N, K] or the largest of them.
        targets: [N], or [N, K] for labels and values; None without labels.
        mask: [B, L], where the rows of sequences stand; None where rows are samples.
        mixed: samples are mixed, so each has two targets.
    """

    student: Tensor
    teachers: list[Tensor | TopK]
    targets: Tensor | None
    mask: Tensor | None
    mixed: bool = False

    def check_targets(self, *, by_value: bool) -> None:
        """Refuses targets that do not go with the outputs: [N], or by value [N, K] ([N] too where K is 1)."""
        assert self.targets is not None
        if self.mixed:
            raise RequestError(
                "a term that reads each sample's own label, and the samples are mixed (mixup, cutmix)",
                fix='data.mix = "none", or a variant whose soft terms read no labels',
            )
        needed = self.student.shape if by_value else self.student.shape[:1]
        given = self.targets.unsqueeze(1) if by_value and self.targets.ndim == 1 else self.targets
        if given.shape != needed:
            raise RequestError(
                f"outputs {tuple(self.student.shape)} and targets {tuple(self.targets.shape)}; "
                f"needed targets {tuple(needed)}"
            )


def rows_of(task: Task, student: Tensor, teacher: Any, batch: Mapping[str, Any]) -> Rows:
    """What two networks said of a batch, as rows.

    Of sequences only the valid positions are taken, before any softmax: padding may hold anything.

    Args:
        task: its kind says what a row is.
        student: [B, K], or tokens [B, L, V].
        teacher: the same shape, dense or `TopK`; a list of several teachers'.
        batch: normal form; without targets its mask alone says which positions are valid.
    """
    teachers: list[Tensor | TopK] = teacher if isinstance(teacher, list) else [teacher]
    for each in teachers:
        if each.shape != student.shape:
            raise RequestError(
                f"student outputs {tuple(student.shape)} and teacher outputs {tuple(each.shape)}; "
                "both must have one shape, with the same classes in the same order"
            )
    targets, axes, given = batch.get("targets"), 3 if task.kind == "tokens" else 2, batch.get("mask")
    if student.ndim != axes:
        raise RequestError(f"outputs {tuple(student.shape)}; {task.kind} need {axes} axes, classes last")
    if task.kind != "tokens":
        return Rows(student, teachers, targets, None, "mixed" in batch)
    if given is not None and given.shape != student.shape[:2]:
        raise RequestError(f"mask {tuple(given.shape)} for outputs {tuple(student.shape)}; needed [B, L]")
    labels = student.new_zeros(student.shape[:2], dtype=torch.long) if targets is None else targets
    _, labels, mask = cast(Tokens, task).positions(student, {**batch, "targets": labels})
    whole = F.pad(mask, (0, student.shape[1] - mask.shape[1]))  # a causal task leaves out the last position
    picked = [each.select(whole) if isinstance(each, TopK) else each[whole] for each in teachers]
    return Rows(student[whole], picked, None if targets is None else labels[mask], whole)


def soft_term(
    task: Task, student: Tensor, teacher: Any, batch: Mapping[str, Any], temperature: float
) -> Tensor:
    """The soft term of plain distillation, in the form that the kind of the task asks for; T^2 inside.

    Args:
        task: of one of the kinds in `REDUCTIONS`: a KL of classes or tokens, a Bernoulli KL of labels, the
            squared error of values.
        student: outputs, as in `rows_of`.
        teacher: of one teacher, likewise.
        batch: normal form.
        temperature: T > 0.
    """
    rows = rows_of(task, student, teacher, batch)
    own, target = rows.student, rows.teachers[0]
    if isinstance(target, TopK):
        values = sparse_divergence(own, target, temperature, "none")
    elif task.kind == "values":
        values = squared_error(own, target, "none")
    else:
        divergence = bernoulli_divergence if task.kind == "labels" else softened_divergence
        values = divergence(own, target, temperature, "none")
    return reduce_rows(values, rows.mask, batch, REDUCTIONS[task.kind][0])


def check_labelled(batch: Mapping[str, Any], hard_weight: float) -> None:
    """Refuses a batch without targets for a hard term of some weight."""
    if batch.get("targets") is None:
        raise RequestError(
            f"hard_weight {hard_weight:g} needs labels, and the batch has no targets",
            fix="hard_weight = 0 trains on the teacher alone",
        )


def supervised(task: Task, output: Tensor, batch: Mapping[str, Any], reduction: RowReduction) -> Tensor:
    """The loss of the task beside a term of that reduction: reduced alike for labels and tokens, else a mean.

    Args:
        task: of one of the kinds in `REDUCTIONS`.
        output: [B, K], or tokens [B, L, V].
        batch: normal form, with targets.
        reduction: one of `REDUCTIONS` for the kind.
    """
    if task.kind == "tokens" and reduction != "token_mean":
        logits, targets, mask = cast(Tokens, task).positions(output, batch)
        each = F.cross_entropy(widen(logits[mask]), targets[mask], reduction="none")
        return reduce_rows(each, mask, batch, reduction)
    loss = task.loss(output, batch)
    if task.kind == "labels" and reduction == "mean":
        return loss / output.shape[-1]
    if task.kind == "labels" and reduction == "sum":
        return loss * task.labelled(batch["targets"]).sum()
    return loss


def reduce_rows(
    values: Tensor,
    mask: Tensor | None,
    batch: Mapping[str, Any],
    reduction: RowReduction,
    *,
    counted: Tensor | None = None,
    width: int = 1,
) -> Tensor:
    """One value a row as a scalar; means are exact over micro-batches and processes.

    Args:
        values: [N].
        mask: [B, L] of sequences, see `Rows`.
        batch: normal form; its `count` divides where the loop gives one.
        reduction: one of `REDUCTIONS` for the kind of output.
        counted: [N], the samples that count, those with a label; None: all. Not for sequences.
        width: the number of classes, for `mean`.
    """
    if reduction == "sum" and batch.get("count") is not None:
        raise RequestError(
            "reduction sum over a batch that is cut into micro-batches or spread over processes: "
            "their mean is taken, which would make the sum smaller",
            fix="reduction = batchmean, with the weights times the batch size",
        )
    if mask is not None:
        return reduce_tokens(
            values, mask, cast(TokenReduction, reduction), count=_token_count(mask, batch, reduction)
        )
    count = denominator(batch, "samples", len(values))
    if counted is not None:
        values = values.masked_fill(~counted, 0)
        count = denominator(batch, "targets", counted.sum())
    return reduce_samples(values, cast(Reduction, reduction), width=width, count=count)


def _token_count(mask: Tensor, batch: Mapping[str, Any], reduction: RowReduction) -> float | Tensor:
    samples = denominator(batch, "samples", len(mask))
    if reduction == "token_mean":
        if batch.get("targets") is None and batch.get("mask") is None:
            return samples * mask[0].sum()  # every position of every sequence
        return denominator(batch, "targets", mask.sum())
    if reduction == "sequence_mean":
        sequences = mask.any(1).sum()
        counted = (batch.get("count") or {"sequences": sequences}).get("sequences")
        # A loop of one's own may count samples alone; that is exact where no sequence is empty.
        return samples * sequences / len(mask) if counted is None else counted
    return samples
