"""Cases of kd: soft and hard targets, decoupled, standardised, top-k, tokens, other outputs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses import (
    TopK,
    bounded_error,
    decoupled_terms,
    log_probabilities,
    mix_logits,
    softened_divergence,
    sparse_divergence,
    squared_error,
    standardize,
    top_k,
)
from limbeck.methods import KD
from limbeck.record import Losses, Record
from limbeck.task import MultiLabel, Regression, Task, Tokens
from tests.golden import Arrays, Case, Results, gradient


def losses_of(method: KD, student: Tensor, teacher: Tensor | TopK | list[Tensor], **batch: object) -> Losses:
    """What the method makes of stored outputs."""
    return method.losses(Record(student), Record(teacher), {"inputs": student, **batch})


def method_of(task: Task | None = None, **settings: object) -> KD:
    """A method whose networks are not run."""
    return KD(nn.Identity(), nn.Identity(), task=task, **settings)


def linear(weight: Tensor) -> nn.Linear:
    """A network z = x W^T."""
    network = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    network.weight.data.copy_(weight)
    return network


def train(file: Arrays, method: KD, steps: int) -> list[Losses]:
    """Full-batch steps of plain gradient descent on the trace's data; one epoch each."""
    optimizer = torch.optim.SGD(method.parameters(), lr=file.number("trace_lr"))
    seen = []
    for step in range(steps):
        method.epoch = step + 1
        losses = method((file["trace_x"], file["trace_labels"]))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        seen.append(losses)
    return seen


def soft(file: Arrays) -> Results:
    student, teacher, labels = file.leaf("logits_s"), file["logits_t"], file["labels"]
    temperatures, temperature = file["temperatures"].tolist(), file.number("T")
    entropies = [
        -(log_probabilities(teacher, t).exp() * log_probabilities(teacher, t)).sum(1).mean() * t**2
        for t in temperatures
    ]
    terms = [losses_of(method_of(temperature=t), student, teacher, targets=labels) for t in temperatures]
    alpha = losses_of(
        method_of(temperature=temperature, alpha=file.number("alpha")), student, teacher, targets=labels
    )
    ones = method_of(temperature=temperature, hard_weight=1.0, soft_weight=1.0)
    both = losses_of(ones, student, teacher, targets=labels)
    soft_losses = [each.terms["soft"] for each in terms]
    return {
        "ce_loss": terms[0].terms["hard"],
        "ce_grad": gradient(terms[0].terms["hard"], student),
        "kl_loss": soft_losses,
        "kl_grad": [gradient(each, student) for each in soft_losses],
        "kl_per_sample": [softened_divergence(student, teacher, t, "none") for t in temperatures],
        "p_t": [log_probabilities(teacher, t).exp() for t in temperatures],
        "p_s": [log_probabilities(student, t).exp() for t in temperatures],
        "entropy_t": entropies,
        "soft_ce_loss": [one + entropy for one, entropy in zip(soft_losses, entropies, strict=True)],
        "kl_sum": softened_divergence(student, teacher, temperature, "sum"),
        "kl_mean": softened_divergence(student, teacher, temperature, "mean"),
        "total_alpha_loss": alpha.total,
        "total_alpha_grad": gradient(alpha.total, student),
        "total_11_loss": both.total,
        "total_11_grad": gradient(both.total, student),
        **_hot(file, student, teacher),
        **_ensembles(file, student, teacher, temperature),
        **_smoothing(file, student, labels),
        **_soft_trace(file, temperature),
    }


def _hot(file: Arrays, student: Tensor, teacher: Tensor) -> Results:
    """The limit of high temperatures: half the squared distance of the centred logits over K."""
    hot = softened_divergence(student, teacher, file.number("T_hot"))
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = centred.square().sum(1).mean() / (2 * student.shape[1])
    return {"kl_hot_loss": hot, "mse_limit_loss": limit, "mse_limit_grad": gradient(limit, student)}


def _ensembles(file: Arrays, student: Tensor, teacher: Tensor, temperature: float) -> Results:
    results: dict[str, Tensor] = {}
    teachers = [teacher, file["logits_t2"]]
    weights = file["ensemble_weights"].double().tolist()
    for name, mixing in (("arith", "arithmetic"), ("geo", "geometric")):
        method = KD(
            nn.Identity(),
            teachers=[nn.Identity() for _ in teachers],
            teacher_weights=weights,
            mixing=mixing,
            alpha=1.0,
            temperature=temperature,
        )
        loss = losses_of(method, student, teachers).total
        mixed = mix_logits(teachers, temperature, mixing, weights)
        results[f"ens_{name}_p"] = log_probabilities(mixed, temperature).exp()
        results[f"ens_{name}_loss"] = loss
        results[f"ens_{name}_grad"] = gradient(loss, student)
    return results


def _smoothing(file: Arrays, student: Tensor, labels: Tensor) -> Results:
    """Label smoothing as distillation at T = 1 from a teacher of equal logits."""
    epsilon = file.number("eps")
    method = method_of(temperature=1.0, hard_weight=1 - epsilon, soft_weight=epsilon)
    losses = losses_of(method, student, torch.zeros_like(student), targets=labels)
    smoothed = losses.total + epsilon * math.log(student.shape[1])
    return {
        "ls_loss": smoothed,
        "ls_grad": gradient(smoothed, student),
        "uniform_kl_loss": losses.terms["soft"],
    }


def _soft_trace(file: Arrays, temperature: float) -> Results:
    method = KD(
        linear(file["trace_W0"]),
        linear(file["trace_Wt"]),
        alpha=file.number("alpha"),
        temperature=temperature,
    )
    seen = train(file, method, file.integer("trace_steps"))
    return {
        "trace_total": [losses.total for losses in seen],
        "trace_ce": [losses.terms["hard"] for losses in seen],
        "trace_kl": [losses.terms["soft"] for losses in seen],
        "trace_W_final": method.student.weight,
    }


def decoupled(file: Arrays) -> Results:
    student, teacher, labels = file.leaf("logits_s"), file["logits_t"], file["labels"]
    settings = list(
        zip(file["dkd_alpha"].tolist(), file["dkd_beta"].tolist(), file["dkd_T"].tolist(), strict=True)
    )
    losses = [
        _dkd(student, teacher, labels, alpha=alpha, beta=beta, temperature=t) for alpha, beta, t in settings
    ]
    parts = [decoupled_terms(student, teacher, labels, t) for _, _, t in settings]
    return {
        "dkd_loss": losses,
        "dkd_grad": [gradient(loss, student) for loss in losses],
        "tckd_per_sample": [target for target, _ in parts],
        "nckd_per_sample": [non_target for _, non_target in parts],
        "p_target_t": [
            log_probabilities(teacher, t).exp().gather(1, labels[:, None])[:, 0] for _, _, t in settings
        ],
        "kl_loss": [softened_divergence(student, teacher, t) for _, _, t in settings],
        "ce_loss": F.cross_entropy(student, labels),
        **_warmup(file, student, teacher, labels, settings[0]),
        **_standardized(file, student, teacher, labels),
        **_edges(file, teacher),
        **_decoupled_trace(file),
    }


def _dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    standardize: bool = False,
) -> Tensor:
    """The decoupled term alone, through the method; through the functions where it has two classes."""
    if student.shape[1] < 3:
        target, non_target = decoupled_terms(student, teacher, labels, temperature)
        return (alpha * target + beta * non_target).mean()
    method = method_of(
        variant="decoupled",
        temperature=temperature,
        hard_weight=0.0,
        soft_weight=1.0,
        target_weight=alpha,
        non_target_weight=beta,
        warmup=0,
        standardize=standardize,
    )
    return losses_of(method, student, teacher, targets=labels).total


def _warmup(
    file: Arrays, student: Tensor, teacher: Tensor, labels: Tensor, setting: tuple[float, float, float]
) -> Results:
    method = method_of(
        variant="decoupled",
        temperature=setting[2],
        target_weight=setting[0],
        non_target_weight=setting[1],
        warmup=file.integer("warmup"),
    )
    totals, factors = [], []
    for epoch in file["epochs"].tolist():
        method.epoch = epoch
        losses = losses_of(method, student, teacher, targets=labels)
        totals.append(losses.total)
        factors.append(losses.weights["non_target"] / setting[1])
    return {
        "warm_factor": factors,
        "warm_total_loss": totals,
        "warm_total_grad_first": gradient(totals[0], student),
    }


def _standardized(file: Arrays, student: Tensor, teacher: Tensor, labels: Tensor) -> Results:
    temperature, epsilon = file.number("stand_T"), file.number("stand_eps")
    method = method_of(
        standardize=True,
        temperature=temperature,
        hard_weight=file.number("stand_ce_weight"),
        soft_weight=file.number("stand_weight"),
    )
    losses = losses_of(method, student, teacher, targets=labels)
    population = losses_of(
        method_of(standardize=True, population=True, temperature=temperature, alpha=1.0), student, teacher
    ).total
    dkd = _dkd(
        student,
        teacher,
        labels,
        alpha=file.number("stand_dkd_alpha"),
        beta=file.number("stand_dkd_beta"),
        temperature=temperature,
        standardize=True,
    )
    return {
        "z_s": standardize(student, epsilon=epsilon),
        "z_t": standardize(teacher, epsilon=epsilon),
        "stand_kl_loss": losses.terms["soft"],
        "stand_kl_grad": gradient(losses.terms["soft"], student),
        "stand_total_loss": losses.total,
        "stand_total_grad": gradient(losses.total, student),
        "stand_pop_kl_loss": population,
        "stand_pop_kl_grad": gradient(population, student),
        "stand_dkd_loss": dkd,
        "stand_dkd_grad": gradient(dkd, student),
    }


def _edges(file: Arrays, teacher: Tensor) -> Results:
    """A student of equal logits, two classes, logits so far apart that probabilities vanish."""
    constant = file.leaf("const_logits_s")
    flat = softened_divergence(standardize(constant), standardize(teacher[:1]), file.number("stand_T"))
    results: dict[str, Tensor] = {"const_loss": flat, "const_grad": gradient(flat, constant)}
    for name in ("edge", "extreme"):
        student, labels = file.leaf(f"{name}_logits_s"), file[f"{name}_labels"]
        temperature = file.number(f"{name}_T")
        loss = _dkd(
            student,
            file[f"{name}_logits_t"],
            labels,
            alpha=file.number(f"{name}_alpha"),
            beta=file.number(f"{name}_beta"),
            temperature=temperature,
        )
        parts = decoupled_terms(student, file[f"{name}_logits_t"], labels, temperature)
        shape = file.arrays[f"{name}_tckd"].shape
        results[f"{name}_loss"], results[f"{name}_grad"] = loss, gradient(loss, student)
        results[f"{name}_tckd"], results[f"{name}_nckd"] = parts[0].reshape(shape), parts[1].reshape(shape)
    return results


def _decoupled_trace(file: Arrays) -> Results:
    method = KD(
        linear(file["trace_W0"]),
        linear(file["trace_Wt"]),
        variant="decoupled",
        temperature=file.number("trace_T"),
        target_weight=file.number("trace_alpha"),
        non_target_weight=file.number("trace_beta"),
        warmup=file.integer("trace_warmup"),
    )
    seen = train(file, method, file.integer("trace_epochs"))
    return {
        "trace_total": [losses.total for losses in seen],
        "trace_dkd": [
            method.target_weight * losses.terms["target"]
            + method.non_target_weight * losses.terms["non_target"]
            for losses in seen
        ],
        "trace_W_final": method.student.weight,
    }


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


CASES = (
    Case(
        "soft",
        needs=("logits_s", "logits_t", "labels", "temperatures", "kl_loss", "kl_per_sample"),
        results=soft,
        tolerance32=2e-5,  # at T = 20 the rounding of a log softmax stands times T^2 = 400
        tolerances={"kl_hot_loss": 1e-7},
        wide_only=("kl_hot_loss",),
    ),
    Case(
        "decoupled",
        needs=("logits_s", "logits_t", "labels", "dkd_alpha", "dkd_beta", "dkd_T", "dkd_loss"),
        results=decoupled,
        tolerances={"const_grad": 1e-6},
        wide_only=("const_grad",),
    ),
    Case(
        "topk",
        needs=("logits_s", "logits_t", "k", "temperatures", "bucket_loss"),
        results=sparse,
    ),
    Case(
        "tokens",
        needs=("logits_s", "logits_t", "labels", "mask", "per_token_kl"),
        results=tokens,
    ),
    Case(
        "outputs",
        needs=("ml_logits_s", "ml_logits_t", "reg_s", "reg_t", "reg_y"),
        results=outputs,
    ),
)
