"""Cases of kd: soft and hard targets, decoupled, standardised, top-k, tokens, other outputs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses import (
    decoupled_terms,
    log_probabilities,
    mix_logits,
    softened_divergence,
    standardize,
)
from limbeck.methods import KD
from limbeck.record import Losses
from tests.golden import Arrays, Case, Results, gradient
from tests.golden.kd_outputs import losses_of, method_of, outputs, sparse, tokens


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
