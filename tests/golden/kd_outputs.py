"""Cases of kd with other targets and outputs: top-k, tokens, several labels, real values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses import (
    TopK,
    bounded_error,
    log_probabilities,
    softened_divergence,
    sparse_divergence,
    squared_error,
    top_k,
)
from limbeck.methods import KD
from limbeck.record import Losses, Record
from limbeck.task import MultiLabel, Regression, Task, Tokens
from tests.golden import Arrays, Results, gradient


def losses_of(method: KD, student: Tensor, teacher: Tensor | TopK | list[Tensor], **batch: object) -> Losses:
    """What the method makes of stored outputs."""
    return method.losses(Record(student), Record(teacher), {"inputs": student, **batch})


def method_of(task: Task | None = None, **settings: object) -> KD:
    """A method whose networks are not run."""
    return KD(nn.Identity(), nn.Identity(), task=task, **settings)


def sparse(file: Arrays) -> Results:
    student, teacher, k = file.leaf("logits_s"), file["logits_t"], file.integer("k")
    temperatures = file["temperatures"].tolist()
    kept = top_k(teacher, k, temperatures)
    stored = TopK(file["index"], file["value"], file["log_rest"].T, tuple(temperatures), teacher.shape[1])
    results: dict[str, Tensor | list[Tensor]] = {
        "index": kept.index,
        "value": kept.value,
        "log_rest": kept.log_rest.T,
    }
    for name, rest in (("bucket", "bucket"), ("uniform", "uniform"), ("renorm", "renormalize")):
        losses = [
            losses_of(method_of(temperature=t, alpha=1.0, rest=rest), student, stored).total
            for t in temperatures
        ]
        results[f"{name}_loss"] = losses
        results[f"{name}_grad"] = [gradient(loss, student) for loss in losses]
    full = [softened_divergence(student, teacher, t) for t in temperatures]
    results["full_loss"], results["full_grad"] = full, [gradient(loss, student) for loss in full]
    return {**results, **_masses(student, stored), **_other_temperatures(student, teacher, k, temperatures)}


def _masses(student: Tensor, stored: TopK) -> Results:
    tops, rests = zip(*(stored.log_probabilities(t) for t in stored.temperatures), strict=True)
    predicted = [log_probabilities(student, t).exp() for t in stored.temperatures]
    kept = [each.gather(1, stored.index) for each in predicted]
    return {
        "p_top": [each.exp() for each in tops],
        "p_rest": [each.exp() for each in rests],
        "q_top": kept,
        "q_rest": [each.scatter(1, stored.index, 0.0).sum(1) for each in predicted],
    }


def _other_temperatures(student: Tensor, teacher: Tensor, k: int, temperatures: list[float]) -> Results:
    """At the last T: extrapolated from T = 1, everything kept, one class kept."""
    last, num_classes = temperatures[-1], teacher.shape[1]
    at_one = top_k(teacher, k, [1.0])

    def in_all_forms(kept: TopK) -> list[Tensor]:
        return [
            sparse_divergence(student, kept, last, rest="bucket"),
            sparse_divergence(student, kept, last, rest="uniform"),
            sparse_divergence(student, kept, last, rest="renormalize"),
        ]

    extrapolated = method_of(temperature=last, alpha=1.0, extrapolate=True)
    return {
        "log_rest_extrapolated": at_one.log_rest_at(last, extrapolate=True),
        "bucket_extrapolated_loss": losses_of(extrapolated, student, at_one).total,
        "kfull_loss": in_all_forms(top_k(teacher, num_classes, [last])),
        "k1_loss": in_all_forms(top_k(teacher, 1, [last])),
    }


def tokens(file: Arrays) -> Results:
    student, teacher, temperature = file.leaf("logits_s"), file["logits_t"], file.number("T")
    batch = {"targets": file["labels"], "mask": file["mask"]}
    mask = file["mask"]

    def run(task: Tokens, **settings: object) -> Losses:
        return losses_of(method_of(task, temperature=temperature, **settings), student, teacher, **batch)

    whole = run(Tokens(), alpha=file.number("alpha"))
    sequence = run(Tokens(), alpha=1.0, reduction="sequence_mean").total
    causal_task = Tokens(causal=True)
    causal = run(causal_task, alpha=file.number("alpha"))
    causal_mask = causal_task.positions(student, batch)[2]
    per_token = torch.zeros(mask.shape, dtype=student.dtype)
    per_token[mask] = softened_divergence(student[mask], teacher[mask], temperature, "none").detach()
    return {
        "n_valid": mask.sum(),
        "per_token_kl": per_token,
        "token_mean_loss": whole.terms["soft"],
        "token_mean_grad": gradient(whole.terms["soft"], student),
        "sequence_mean_loss": sequence,
        "sequence_mean_grad": gradient(sequence, student),
        "batch_mean_loss": run(Tokens(), alpha=1.0, reduction="batchmean").total,
        "ce_loss": whole.terms["hard"],
        "total_loss": whole.total,
        "total_grad": gradient(whole.total, student),
        "causal_mask": causal_mask,
        "causal_n_valid": causal_mask.sum(),
        "causal_loss": causal.terms["soft"],
        "causal_grad": gradient(causal.terms["soft"], student),
        "causal_ce_loss": causal.terms["hard"],
        "micro_loss": _micro_batches(file, student, teacher, temperature),
    }


def _micro_batches(file: Arrays, student: Tensor, teacher: Tensor, temperature: float) -> list[Tensor]:
    """The soft term of each sequence by itself, over the count of the whole batch."""
    number = len(student)
    count = {"samples": 1.0, "targets": float(file["mask"].sum()) / number}
    return [
        losses_of(
            method_of(Tokens(), temperature=temperature, alpha=1.0),
            student[i : i + 1],
            teacher[i : i + 1],
            targets=file["labels"][i : i + 1],
            mask=file["mask"][i : i + 1],
            count=count,
        ).total
        / number
        for i in range(number)
    ]


def outputs(file: Arrays) -> Results:
    return {**_labels(file), **_values(file)}


def _labels(file: Arrays) -> Results:
    student, teacher, labels = file.leaf("ml_logits_s"), file["ml_logits_t"], file["ml_labels"]
    temperatures = file["ml_temperatures"].tolist()

    def run(
        temperature: float, student: Tensor, teacher: Tensor, labels: Tensor, **settings: object
    ) -> Losses:
        method = method_of(MultiLabel(), temperature=temperature, **settings)
        return losses_of(method, student, teacher, targets=labels)

    soft_losses = [run(t, student, teacher, labels).terms["soft"] for t in temperatures]
    total = run(temperatures[0], student, teacher, labels, alpha=file.number("ml_alpha"))
    means = [run(t, student, teacher, labels, reduction="mean") for t in temperatures]
    first = student.detach()[:1].requires_grad_()
    alone = run(temperatures[-1], first, teacher[:1], labels[:1]).terms["soft"]
    # The binary cross-entropy with soft targets is the divergence plus the teacher's entropy.
    entropies = [
        F.binary_cross_entropy_with_logits(teacher / t, (teacher / t).sigmoid(), reduction="sum")
        * (t**2 / len(student))
        for t in temperatures
    ]
    return {
        "ml_kl_batchmean_loss": soft_losses,
        "ml_kl_batchmean_grad": [gradient(loss, student) for loss in soft_losses],
        "ml_kl_mean_loss": [losses.terms["soft"] for losses in means],
        "ml_soft_bce_batchmean_loss": [
            loss + entropy for loss, entropy in zip(soft_losses, entropies, strict=True)
        ],
        "ml_bce_batchmean_loss": total.terms["hard"],
        "ml_bce_mean_loss": means[0].terms["hard"],
        "ml_total_loss": total.total,
        "ml_total_grad": gradient(total.total, student),
        "ml_batch1_loss": alone,
        "ml_batch1_grad": gradient(alone, first),
    }


def _values(file: Arrays) -> Results:
    student, teacher, goal = file.leaf("reg_s"), file["reg_t"], file["reg_y"]
    margins = file["reg_margins"].tolist()

    def run(**settings: object) -> Tensor:
        return losses_of(method_of(Regression(), alpha=1.0, **settings), student, teacher, targets=goal).total

    square, smooth = run(), run(regression="smooth_l1")
    bounded = [run(regression="bounded", margin=margin) for margin in margins]
    width = student.shape[1]
    errors = squared_error(student, goal, "none") * width
    active: list[Tensor] = []
    for margin in margins:
        active.append((bounded_error(student, teacher, goal, margin, "none") > 0).to(student.dtype))
    return {
        "reg_mse_loss": square,
        "reg_mse_grad": gradient(square, student),
        "reg_smooth_l1_loss": smooth,
        "reg_smooth_l1_grad": gradient(smooth, student),
        "reg_err_s": errors,
        "reg_err_t": squared_error(teacher, goal, "none") * width,
        "reg_bounded_loss": bounded,
        "reg_bounded_grad": [gradient(loss, student) for loss in bounded],
        "reg_bounded_active": active,
    }
