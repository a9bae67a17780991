"""Cases of mlkd: one batch with all its intermediates, and a short training on turned pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.data.dataset import ArrayDataset
from limbeck.data.views import Views, view_number
from limbeck.losses import similarities, unit
from limbeck.methods import MLKD
from limbeck.record import Losses, Record
from tests.golden import Arrays, Case, Results, gradient

#: Names of a file for the parameters of a map of two layers.
LAYERS = {
    "W1": "0.weight",
    "b1": "0.bias",
    "bn_w": "1.weight",
    "bn_b": "1.bias",
    "W2": "3.weight",
    "b2": "3.bias",
}
WEIGHTS = ("hard_weight", "correlation_weight", "categorical_weight", "alignment_weight")
#: Names of a file for the terms.
TERMS = {
    "loss_cls": "hard",
    "loss_corr": "correlation",
    "loss_supcon": "categorical",
    "loss_align": "alignment",
}


def named(method: MLKD) -> dict[str, nn.Parameter]:
    """The parameters of the maps by their names in a file."""
    found: dict[str, nn.Parameter] = {}
    for prefix, module in (("align", method.alignment), ("corr", method.correlation)):
        assert module is not None
        found |= {f"{prefix}_{short}": module.get_parameter(name) for short, name in LAYERS.items()}
    for side, embedding in zip("st", method.embeddings, strict=False):
        found |= {f"emb_{side}_W": embedding.weight, f"emb_{side}_b": embedding.bias}
    return found


def load(method: MLKD, file: Arrays, suffix: str = "") -> MLKD:
    """The method with the maps of a file, in its type."""
    method.to(file.dtype)
    for name, parameter in named(method).items():
        value = file[name + suffix]
        assert value.shape == parameter.shape, f"{name} is {value.shape}, needed {parameter.shape}"
        parameter.data.copy_(value)
    for norm in norms(method).values():
        if "bn_eps" in file:
            norm.eps, norm.momentum = file.number("bn_eps"), file.number("bn_momentum")
    return method


def norms(method: MLKD) -> dict[str, nn.BatchNorm1d]:
    """The batch norms by the start of the names of their statistics in a file."""
    found = {}
    for prefix, module in (("align", method.alignment), ("corr", method.correlation)):
        assert module is not None
        assert isinstance(module[1], nn.BatchNorm1d)
        found[f"{prefix}_bn"] = module[1]
    return found


def statistics(method: MLKD, suffix: str = "") -> dict[str, Tensor]:
    found = {}
    for name, norm in norms(method).items():
        found[f"{name}_running_mean{suffix}"] = norm.running_mean.clone()
        found[f"{name}_running_var{suffix}"] = norm.running_var.clone()
    return found


class Batch:
    """The stored features and logits of a file, and what a method makes of them."""

    def __init__(self, file: Arrays) -> None:
        self.file, self.labels = file, file["labels"]
        self.own, self.target, self.logits = file.leaf("f_s"), file["f_t"], file.leaf("logits_s")
        self.views = file.integer("views")

    def method(self, weights: list[float]) -> MLKD:
        widths, classes = (self.own.shape[1], self.target.shape[1]), self.logits.shape[1]
        # Networks that are not run but for the dry batch; their first Linear makes features of the widths.
        networks = [nn.Sequential(nn.Linear(2, width), nn.Linear(width, classes)) for width in widths]
        made = MLKD(
            *networks,
            example=torch.zeros(4, 2),
            views=self.views,
            **dict(zip(WEIGHTS, weights, strict=True)),
            correlation_temperature=self.file.number("tau_corr"),
            contrast_temperature=self.file.number("tau_supcon"),
            embedding=self.file["emb_s_W"].shape[0],
        )
        return load(made, self.file)

    def losses(self, method: MLKD) -> Losses:
        inputs = torch.arange(len(self.own), dtype=self.file.dtype)
        batch = {"inputs": inputs, "targets": self.labels.repeat_interleave(self.views)}
        own, other = method.tapped["student"][0], method.tapped["teacher"][0]
        return method.losses(Record(self.logits, {own: self.own}), Record(None, {other: self.target}), batch)


def one_batch(file: Arrays) -> Results:
    batch = Batch(file)
    assert file.number("eps_supcon") == 1e-7
    every = batch.method([1.0] * 4)
    terms = batch.losses(every).terms
    results: dict[str, object] = {name: terms[term] for name, term in TERMS.items()}
    results |= statistics(every)
    for name in ("align", "corr", "supcon"):
        results[f"grad_f_s_{name}"] = gradient(terms[TERMS[f"loss_{name}"]], batch.own)
    results |= intermediates(file, every, batch)
    method = batch.method(file["weights"].tolist())
    total = batch.losses(method).total
    results |= {"total": total, "grad_f_s": gradient(total, batch.own)}
    results["grad_logits_s"] = gradient(total, batch.logits)
    results |= {f"grad_{name}": gradient(total, value) for name, value in named(method).items()}
    for name in file.names("grad_emb_*"):  # of terms without a weight there is no parameter
        results.setdefault(name, torch.zeros_like(file[name.removeprefix("grad_")]))
    return results


def intermediates(file: Arrays, method: MLKD, batch: Batch) -> dict[str, Tensor]:
    """What the method computes on its way, by the names of a file."""
    assert method.alignment is not None
    assert method.correlation is not None
    aligned, related = method.alignment(batch.own), method.correlation(batch.own)
    results = {"align_out": aligned, "corr_out": related}
    results["align_cos"] = (unit(aligned) * unit(batch.target)).sum(1)
    for side, value in (("s", related), ("t", batch.target)):
        results[f"sim_{side}"] = similarities(value, batch.views)
        results[f"prob_{side}"] = (results[f"sim_{side}"] / file.number("tau_corr")).softmax(1)
    for side, value, embedding in zip("st", (batch.own, batch.target), method.embeddings, strict=True):
        results[f"emb_{side}"] = unit(embedding(value), 1e-12)
    return results


class Network(nn.Module):
    """A network of the trace: a Linear with ReLU on the flat picture, and a classifier if it has one."""

    def __init__(self, first: list[Tensor], second: list[Tensor] | None = None) -> None:
        super().__init__()
        self.first, self.relu = filled(*first), nn.ReLU()
        self.second = nn.Identity() if second is None else filled(*second)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.relu(self.first(x.flatten(1))))


def filled(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    return layer


def turned(pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Every picture in its four quarter turns, as the loop's loader reads them."""
    data = ArrayDataset(pictures, labels).augment(Views(0, ["rotate"]))
    places = torch.arange(4).repeat(len(pictures))
    rows = torch.arange(len(pictures)).repeat_interleave(4)
    return data.batch(rows, view_number(torch.zeros_like(places), places))


def trace(file: Arrays) -> Results:
    names = {"S1": "first.weight", "s1": "first.bias", "S2": "second.weight", "s2": "second.bias"}
    start = [file[f"{name}_init"] for name in names]
    student, teacher = Network(start[:2], start[2:]), Network([file["T1"], file["t1"]])
    batch = turned(file["x"], file["labels"])
    method = MLKD(
        student,
        teacher,
        example=batch,
        **dict(zip(WEIGHTS, file["weights"].tolist(), strict=True)),
        correlation_temperature=file.number("tau_corr"),
        contrast_temperature=file.number("tau_supcon"),
        embedding=file["emb_s_W_init"].shape[0],
    )
    load(method, file, "_init")
    optimizer = torch.optim.SGD(method.parameters(), lr=file.number("lr"))
    seen: list[Losses] = []
    for _ in range(file.integer("steps")):
        losses = method(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        seen.append(losses)
    ends = {name: student.get_parameter(path) for name, path in names.items()} | named(method)
    rows = [torch.stack([*(each.terms[term] for term in TERMS.values()), each.total]) for each in seen]
    return {
        "views_flat": batch["inputs"].flatten(1),
        "losses": rows,
        "final_logits_upright": student(file["x"]),
        **{f"{name}_end": value for name, value in ends.items()},
        **statistics(method, "_end"),
    }


CASES = (
    Case("training", needs=("x", "S1_init", "views_flat"), results=trace, tolerance=1e-7, tolerance32=1e-4),
    Case(
        "one batch", needs=("f_s", "f_t", "loss_supcon"), results=one_batch, tolerance=1e-8, tolerance32=1e-4
    ),
)
