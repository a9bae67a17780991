"""Cases of semckd: one batch with all its intermediates, and a short training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.methods import SemCKD
from limbeck.methods._cross_layers import Association, Map, match, similarity
from limbeck.record import Losses
from tests.golden import Arrays, Case, Results, gradient

#: Names of a file for the parameters of an embedding and of a projection.
EMBEDDING = {"w1": "hidden.weight", "b1": "hidden.bias", "w2": "out.weight", "b2": "out.bias"}
PROJECTION = {
    "c1": "layers.0.weight",
    "bn1_w": "layers.1.weight",
    "bn1_b": "layers.1.bias",
    "c2": "layers.3.weight",
    "bn2_w": "layers.4.weight",
    "bn2_b": "layers.4.bias",
    "c3": "layers.6.weight",
}


class Factor(nn.Module):
    """Multiplies by 1, so that a stored map becomes the value of a layer that has a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, value: Tensor) -> Tensor:
        return value * self.one


class Answers(nn.Module):
    """A network whose layers and logits are those that its inputs hold."""

    def __init__(self, side: str, number: int) -> None:
        super().__init__()
        self.side = side
        self.layers = nn.ModuleList(Factor() for _ in range(number))

    def forward(self, **values: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            layer(values[f"feat_{self.side}_{i}"])
        return values[f"logits_{self.side}"]


class Network(nn.Module):
    """The network of the trace: two convolutions with ReLU, spatial mean, Linear."""

    def __init__(self, arrays: list[Tensor]) -> None:
        super().__init__()
        kernel1, bias1, kernel2, bias2, matrix, bias = arrays
        self.conv1 = nn.Conv2d(kernel1.shape[1], kernel1.shape[0], 3, padding=1)
        self.conv2 = nn.Conv2d(kernel2.shape[1], kernel2.shape[0], 3, padding=1, stride=2)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(matrix.shape[1], matrix.shape[0])
        self.to(matrix.dtype)
        values = (kernel1, bias1, kernel2, bias2, matrix, bias)
        for parameter, value in zip(self.parameters(), values, strict=True):
            parameter.data.copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


def named(method: SemCKD) -> dict[str, nn.Parameter]:
    """The parameters of attention and projections by their names in a file."""
    assert method.association is not None
    found = {}
    sides = (("q", method.association.queries), ("k", method.association.keys))
    for letter, networks in sides:
        for i, network in enumerate(networks):
            own = dict(network.named_parameters())
            found |= {f"{letter}{i}_{short}": own[name] for short, name in EMBEDDING.items()}
    for i, row in enumerate(method.projections):
        for j, projection in enumerate(row):
            own = dict(projection.named_parameters())
            found |= {f"p{i}{j}_{short}": own[name] for short, name in PROJECTION.items()}
    return found


def load(method: SemCKD, file: Arrays, suffix: str = "") -> SemCKD:
    """The method with the attention and the projections of a file, in its type."""
    method.to(file.dtype)
    for name, parameter in named(method).items():
        value = file[name + suffix]
        assert value.shape == parameter.shape, f"{name} is {value.shape}, needed {parameter.shape}"
        parameter.data.copy_(value)
    for module in method.projections.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = file.number("bn_eps")
    return method


def batch_of(file: Arrays) -> tuple[dict[str, object], list[Tensor], list[Tensor]]:
    """The stored values as inputs; student and teacher maps apart."""
    student = [file.leaf(name) for name in sorted(file.names("feat_s_*"))]
    teacher = [file[name] for name in sorted(file.names("feat_t_*"))]
    inputs = {f"feat_s_{i}": value for i, value in enumerate(student)}
    inputs |= {f"feat_t_{j}": value for j, value in enumerate(teacher)}
    inputs |= {"logits_s": file.leaf("logits_s"), "logits_t": file["logits_t"]}
    return {"inputs": inputs, "targets": file["labels"]}, student, teacher


def one_batch(file: Arrays) -> Results:
    batch, student, teacher = batch_of(file)
    sides = (("student", Answers("s", len(student))), ("teacher", Answers("t", len(teacher))))
    networks = {side: network.to(file.dtype) for side, network in sides}
    taps = {side: [f"layers.{i}" for i in range(len(network.layers))] for side, network in sides}

    def method(**settings: object) -> SemCKD:
        made = SemCKD(
            **networks,
            taps=taps,
            example=batch,
            temperature=file.number("T"),
            beta=file.number("beta"),
            factor=file.integer("factor"),
            **settings,
        )
        return load(made, file)

    plain = method()
    losses = plain(batch)
    first = plain.projections[0][0].layers[1]
    statistics = first.running_mean.clone(), first.running_var.clone()
    values_only = method(attention="detached")(batch)
    soft = method(attention_temperature=file.number("soft"))
    sharper = soft(batch)
    loss, inputs = losses.terms["semckd"], batch["inputs"]
    logits = losses.terms["hard"] + losses.terms["soft"]
    results = {
        "loss_sem": loss,
        "loss_sem_soft": sharper.terms["semckd"],
        "loss_ce": losses.terms["hard"],
        "loss_kl": losses.terms["soft"],
        "loss_total": losses.total,
        "grad_logits_s": gradient(logits, inputs["logits_s"]),
        "p00_bn1_running_mean": statistics[0],
        "p00_bn1_running_var": statistics[1],
        **intermediates(plain, soft, student, teacher),
    }
    for i, value in enumerate(student):
        results[f"grad_feat_s_{i}"] = gradient(loss, value)
        results[f"grad_feat_s_{i}_values_only"] = gradient(values_only.terms["semckd"], value)
        results[f"grad_feat_s_{i}_soft"] = gradient(sharper.terms["semckd"], value)
    return results | {f"grad_{name}": gradient(loss, value) for name, value in named(plain).items()}


def intermediates(
    method: SemCKD, soft: SemCKD, student: list[Tensor], teacher: list[Tensor]
) -> dict[str, Tensor]:
    """What the method computes on its way, by the names of a file."""
    association = method.association
    assert isinstance(association, Association)
    own, others = [similarity(each) for each in student], [similarity(each) for each in teacher]
    results = {f"sim_s_{i}": value for i, value in enumerate(own)}
    results |= {f"sim_t_{j}": value for j, value in enumerate(others)}
    results["query"] = association.embedded(association.queries, own)
    results["key"] = association.embedded(association.keys, others)
    results["energy"] = association.energies(own, others)
    results["attention"] = association(own, others, 1.0)
    results["attention_soft"] = association(own, others, soft.attention_temperature)
    maps = [Map(f"s{i}", value) for i, value in enumerate(student)]
    targets = [Map(f"t{j}", value) for j, value in enumerate(teacher)]
    results["mse"] = method._errors(maps, targets)
    for i, row in enumerate(method.projections):
        for j, projection in enumerate(row):
            projected, target, _ = match(projection, maps[i], targets[j])
            results[f"proj_{i}{j}"], results[f"target_{i}{j}"] = projected, target
    return results


def trace(file: Arrays) -> Results:
    names = ("conv1", "cb1", "conv2", "cb2", "fc", "fb")
    student = Network([file[f"s_{name}_init"] for name in names])
    teacher = Network([file[f"t_{name}"] for name in names])
    batch = (file["x"], file["labels"])
    method = SemCKD(
        student,
        teacher,
        taps={"student": ["relu#1", "relu#2"], "teacher": ["relu#1", "relu#2"]},
        example=batch,
        beta=file.number("beta"),
        temperature=file.number("T"),
        factor=file.integer("factor"),
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
    own = dict(zip((f"s_{name}" for name in names), student.parameters(), strict=True)) | named(method)
    first = method.projections[0][0].layers[1]
    statistics = {"p00_bn1_running_mean": first.running_mean, "p00_bn1_running_var": first.running_var}
    finals = {f"{name}_final": value for name, value in (own | statistics).items()}
    return {
        "loss_total": [each.total for each in seen],
        "loss_ce": [each.terms["hard"] for each in seen],
        "loss_kl": [each.terms["soft"] for each in seen],
        "loss_sem": [each.terms["semckd"] for each in seen],
        "attention_mean": [each.notes["attention"] for each in seen],
        **{name: value for name, value in finals.items() if name in file},
    }


CASES = (
    Case(
        "training",
        needs=("x", "s_conv1_init", "attention_mean"),
        results=trace,
        tolerance32=1e-4,
    ),
    Case(
        "one batch",
        needs=("feat_s_0", "feat_t_0", "loss_sem"),
        results=one_batch,
        tolerance32=1e-4,
    ),
)
