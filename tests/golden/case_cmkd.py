"""Cases of cmkd: one batch with all its intermediates and variants, and a short training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.losses import sigmoid_rank, soft_rank, standardize
from limbeck.methods import CMKD
from limbeck.record import Losses, Record
from tests.golden import Arrays, Case, Results, gradient

#: The variants of a file, by the start of the names of their arrays.
PLAIN = {
    "pearson": {"spearman_weight": 0.0},
    "spearman": {"pearson_weight": 0.0},
    "spearman_sigmoid": {"pearson_weight": 0.0, "ranks": "sigmoid"},
    "spearman_squared": {"pearson_weight": 0.0, "spearman": "squared"},
}
WEIGHTED = {
    "cmkd": {},
    "cmkd_inverse": {"weighting": "inverse"},
    "cmkd_student": {"difficulty_from": "student"},
    "cmkd_fixed": {"weighting": "fixed"},
}


def method(file: Arrays, student: nn.Module, teacher: nn.Module, **settings: object) -> CMKD:
    """A method with the settings of a file."""
    given: dict[str, object] = {
        "temperature": file.number("tau"),
        "pearson_weight": file.number("alpha"),
        "spearman_weight": file.number("beta"),
        "hard_weight": file.number("ce_weight"),
    }
    given |= settings
    if given.get("weighting") != "fixed":
        given["difficulty_temperature"] = file.number("difficulty_tau")
    if given.get("ranks") == "sigmoid":
        given["sigmoid_scale"] = file.number("sigmoid_scale")
    else:
        given["rank_strength"] = file.number("rank_strength")
    return CMKD(student, teacher, **given)


class Batch:
    """The stored outputs of a file, and what the method makes of them."""

    def __init__(self, file: Arrays) -> None:
        self.file = file
        self.student, self.teacher, self.labels = file.leaf("logits_s"), file["logits_t"], file["labels"]

    def losses(self, **settings: object) -> Losses:
        return self._losses(slice(None), **settings)

    def rows(self, name: str, **settings: object) -> list[Tensor]:
        """A term or note of each row in a batch of its own."""
        found = []
        for row in range(len(self.labels)):
            losses = self._losses(slice(row, row + 1), **settings)
            found.append((losses.terms | losses.notes)[name])
        return found

    def _losses(self, which: slice, **settings: object) -> Losses:
        made = method(self.file, nn.Identity(), nn.Identity(), **settings)
        batch = {"inputs": self.student[which], "targets": self.labels[which]}
        return made.losses(Record(self.student[which]), Record(self.teacher[which]), batch)


def one_batch(file: Arrays) -> Results:
    batch = Batch(file)
    whole = batch.losses()
    results: dict[str, object] = {
        "total_loss": whole.total,
        "total_grad": gradient(whole.total, batch.student),
        "ce_loss": whole.terms["hard"],
        "ce_grad": gradient(whole.terms["hard"], batch.student),
        "row_valid": [1 - int(each) for each in batch.rows("undefined")],
        "difficulty_teacher": batch.rows("difficulty"),
        "difficulty_student": batch.rows("difficulty", difficulty_from="student"),
        "weight_pearson": batch.rows("pearson_share"),
        "weight_spearman": batch.rows("spearman_share"),
        **intermediates(file, batch),
    }
    for name, settings in PLAIN.items():
        term = name.split("_")[0]
        loss = batch.losses(**settings, weighting="fixed").terms[term]
        results |= {f"{name}_loss": loss, f"{name}_grad": gradient(loss, batch.student)}
        results[f"{name}_row"] = batch.rows(f"{term}_unweighted", **settings)
    for name, settings in WEIGHTED.items():
        loss = batch.losses(**settings, hard_weight=0.0).total
        results |= {f"{name}_loss": loss, f"{name}_grad": gradient(loss, batch.student)}
    return results


def intermediates(file: Arrays, batch: Batch) -> dict[str, Tensor]:
    """What the method computes on its way, by the names of a file."""
    results = {}
    for side, logits in (("s", batch.student), ("t", batch.teacher)):
        standard = standardize(logits)
        results[f"standard_{side}"] = standard
        results[f"prob_{side}"] = (standard / file.number("tau")).softmax(1)
        results[f"rank_{side}"] = soft_rank(standard, file.number("rank_strength"))
        results[f"sigmoid_rank_{side}"] = sigmoid_rank(standard, file.number("sigmoid_scale"))
    return results


class Teacher(nn.Module):
    """The teacher of the trace: z = relu(x T1^T) T2^T."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.first.T).relu() @ self.second.T


def trace(file: Arrays) -> Results:
    weight = file["W_init"]
    student = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    student.weight.data.copy_(weight)
    student.bias.data.copy_(file["b_init"])
    teacher = Teacher(file["T1"], file["T2"])
    made = method(file, student, teacher)
    optimizer = torch.optim.SGD(made.parameters(), lr=file.number("lr"))
    x, labels, size = file["x"], file["labels"], file.integer("batch_size")
    seen: list[Losses] = []
    for step in range(file.integer("steps")):
        first = step * size % len(x)
        losses = made((x[first : first + size], labels[first : first + size]))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        seen.append(losses)
    return {
        "logits_t": teacher(x),
        "total_losses": [each.total for each in seen],
        "ce_losses": [each.terms["hard"] for each in seen],
        "pearson_losses": [each.notes["pearson_unweighted"] for each in seen],
        "spearman_losses": [each.notes["spearman_unweighted"] for each in seen],
        "W_final": student.weight,
        "b_final": student.bias,
    }


CASES = (
    Case("training", needs=("x", "W_init", "spearman_losses"), results=trace, tolerance32=1e-4),
    Case("one batch", needs=("logits_s", "rank_s", "cmkd_loss"), results=one_batch, tolerance32=1e-4),
)
