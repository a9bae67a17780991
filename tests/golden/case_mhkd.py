"""Cases of mhkd: one batch with its heads, and short trainings with both kinds of teacher heads."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.methods import MHKD
from limbeck.methods._branches import Branches
from limbeck.record import Losses
from tests.golden import Arrays, Case, Results, gradient

STATISTICS = ("running_mean", "running_var")


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
            layer(values[f"f_{self.side}_{i}"])
        return values[f"z_{self.side}"]


class Perceptron(nn.Module):
    """The networks of the trace: Linear layers without biases, ReLU between."""

    def __init__(self, matrices: list[Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*reversed(each.shape), bias=False) for each in matrices)
        self.relus = nn.ModuleList(nn.ReLU() for _ in matrices[1:])
        self.to(matrices[0].dtype)
        for layer, value in zip(self.layers, matrices, strict=True):
            layer.weight.data.copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        for layer, relu in zip(self.layers[:-1], self.relus, strict=True):
            x = relu(layer(x))
        return self.layers[-1](x)


def hyper(file: Arrays) -> dict[str, Any]:
    file.read.add("hyper")
    return json.loads(str(file.arrays["hyper"]))


def weights(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file that every case has."""
    return {
        "hard_weight": given["gamma"],
        "soft_weight": given["alpha"],
        "beta": given["beta"],
        "head_soft_weight": given["w_kld"],
        "head_hard_weight": given["w_ce"],
        "temperature": given["temperature"],
    }


def sides(method: MHKD) -> Iterator[tuple[str, Branches]]:
    """The heads by the first letters of their names in a file."""
    yield "Hs", method.branches
    if method.teacher_branches is not None:
        yield "Ht", method.teacher_branches


def load(method: MHKD, file: Arrays) -> MHKD:
    """The method with the heads of a file, in its type."""
    method.to(file.dtype)
    for letters, branches in sides(method):
        for i, head in enumerate(branches.each()):
            stored = {name.removeprefix(f"{letters}{i}."): name for name in file.names(f"{letters}{i}.*")}
            own = head.layers.state_dict()
            counters = {name for name in own if name.endswith("num_batches_tracked")}
            head.layers.load_state_dict(
                {name: file[where] for name, where in stored.items()} | {name: own[name] for name in counters}
            )
    return method


def build(file: Arrays, **settings: Any) -> tuple[MHKD, dict[str, Any], list[Tensor]]:
    """A method on stored values, its batch, and the student's features."""
    given, number = hyper(file), len(file.names("f_s_*"))
    student = [file.leaf(f"f_s_{i}") for i in range(number)]
    inputs = {"z_s": file.leaf("z_s"), "z_t": file["z_t"]}
    inputs |= {f"f_s_{i}": value for i, value in enumerate(student)}
    inputs |= {name: file[name] for name in file.names("f_t_*")}
    layers, taps = [f"layers.{i}" for i in range(number)], {"student": [f"layers.{i}" for i in range(number)]}
    if given["target"] == "branch":
        taps["teacher"] = layers
    batch = {"inputs": inputs, "targets": file["labels"]}
    example = {name: value.detach() for name, value in inputs.items()}
    places = {side: dict.fromkeys(paths, "bchw") for side, paths in taps.items()}
    method = MHKD(
        Answers("s", number).to(file.dtype),
        Answers("t", number if "teacher" in taps else 0).to(file.dtype),
        taps=taps,
        example={"inputs": example},
        layouts=places,
        target=given["target"],
        teacher_heads={"fixed": "pretrained"}.get(given["teacher_heads"], given["teacher_heads"]),
        width=given["width"],
        num_linear=given["n_fc_s"],
        teacher_num_linear=given["n_fc_t"],
        **weights(given),
        **settings,
    )
    load(method, file)
    if method.teacher_branches is not None:
        method.teacher_branches.trained.fill_(True)
    method.enter(method.stages()[-1])
    return method, batch, student


def by_head(losses: Losses, name: str) -> list[Tensor]:
    """The terms of all heads, from input to output."""
    first, _, last = name.partition("*")
    return [losses.terms[f"{first}{n}{last}"] for n in range(1, 1 + len(losses.notes["head_accuracy"]))]


def one_batch(file: Arrays) -> Results:
    method, batch, student = build(file)
    dropped, _, _ = build(file, head_dropout=1.0)
    before = copy.deepcopy(method)
    losses, given = method(batch), hyper(file)
    dropped.progress = 0.0
    alone = dropped(batch)
    soft, hard = by_head(losses, "head*_soft"), by_head(losses, "head*_hard")
    named = (name for name in alone.terms if name.startswith("head"))
    results: dict[str, Any] = {
        "loss_ce_main": losses.terms["hard"],
        "loss_kl_main": losses.terms["soft"],
        "loss_kl_heads": soft,
        "loss_ce_heads_s": hard,
        "loss_per_head": [
            given["w_kld"] * one + given["w_ce"] * two for one, two in zip(soft, hard, strict=True)
        ],
        "loss_total": losses.total,
        "loss_heads_all_dropped": sum(alone.weights[n] * alone.terms[n] for n in named) / given["beta"],
        "grad_z_s": gradient(losses.total, batch["inputs"]["z_s"]),
    }
    results |= {f"grad_f_s_{i}": gradient(losses.total, value) for i, value in enumerate(student)}
    if method.teacher_branches is not None:
        of_teacher = losses if method.is_joint else method(batch, update="teacher_heads")
        results["loss_ce_heads_t"] = [
            of_teacher.terms[f"teacher_head{n}_hard"] for n in range(1, 1 + len(student))
        ]
    for letters, branches in sides(method):
        trains = method.is_joint or letters == "Hs"
        own = dict(sides(before))[letters].each()
        for i, head in enumerate(branches.each()):
            side = letters[1]
            results[f"logits_{side}_{i}"] = own[i](batch["inputs"][f"f_{side}_{i}"])
            values = dict(head.layers.named_parameters())
            for name in file.names(f"grad_{letters}{i}.*"):
                place = name.removeprefix(f"grad_{letters}{i}.")
                results[name] = gradient(losses.total, values[place])
            if trains:
                state = head.layers.state_dict()
                results |= {
                    f"after_{letters}{i}.{name}": value
                    for name, value in state.items()
                    if name.endswith(STATISTICS)
                }
    return results


def trace(file: Arrays) -> Results:
    results: dict[str, Any] = {}
    for kind, teacher_heads in (("joint", "joint"), ("fixed", "pretrained")):
        results |= {f"{kind}_{name}": value for name, value in trained(file, teacher_heads).items()}
    return results


def trained(file: Arrays, teacher_heads: str) -> dict[str, Any]:
    """One training through all stages of the method."""
    given, batch = hyper(file), (file["x"], file["labels"])
    teacher = Perceptron([file[f"T{i}"] for i in range(3)])
    assert torch.allclose(teacher(file["x"]), file["z_t"], rtol=0, atol=1e-5)
    student = Perceptron([file[f"S{i}_init"] for i in range(3)])
    layers = ["relus.0", "relus.1"]
    method = MHKD(
        student,
        teacher,
        taps={"student": layers, "teacher": layers},
        example=batch,
        head="linear",
        num_linear=1,
        teacher_heads=teacher_heads,
        **weights(given),
    ).to(file.dtype)
    parameters = {
        f"{letters}{i}_{short}": getattr(head.layers[0], name)
        for letters, branches in sides(method)
        for i, head in enumerate(branches.each())
        for short, name in (("W", "weight"), ("b", "bias"))
    }
    for name, value in parameters.items():
        value.data.copy_(file[f"{name}_init"])
    results: dict[str, Any] = {}
    for stage in method.stages():
        method.enter(stage)
        [update] = stage.updates
        optimizer = torch.optim.SGD(list(update.parameters()), lr=given["lr"])
        seen = []
        for _ in range(given["steps"]):
            losses = method(batch, update=update.name)
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
            seen.append(losses.total)
        results["loss" if stage.name == "train" else "loss_stage1"] = seen
    results |= parameters | {f"S{i}": layer.weight for i, layer in enumerate(student.layers)}
    return results | {"final_logits": method.deployable()(file["x"])}


CASES = (
    Case("training", needs=("x", "joint_loss", "fixed_loss"), results=trace, tolerance=1e-10),
    Case("one batch", needs=("f_s_0", "loss_total", "hyper"), results=one_batch, tolerance=1e-10),
)
