"""Cases of uhkd: one batch with its spectra under every reading, and a short training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from limbeck.losses import low_pass
from limbeck.methods import UHKD
from limbeck.record import Losses, Record
from tests.golden import Arrays, Case, Results, gradient
from tests.golden.case_semckd import Answers

#: What stands before the arrays of a file that belong to another reading.
READINGS: Mapping[str, Mapping[str, object]] = {
    "complex": {"representation": "complex"},
    "log": {"representation": "log_magnitude"},
    "nofilter": {"filter": "none"},
    "pool": {"downsample": "pool"},
    "student_unfiltered": {"filter_student": False},
    "direct": {"student_path": "direct"},
    "rms": {"normalise": "rms"},
}


class Network(nn.Module):
    """The student of the trace: two convolutions with ReLU, spatial mean, Linear."""

    def __init__(self, file: Arrays) -> None:
        super().__init__()
        kernels, matrix = (file["conv1_w_init"], file["conv2_w_init"]), file["fc_w_init"]
        self.conv1, self.conv2 = (
            nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, stride=stride, padding=1, bias=False)
            for stride, kernel in enumerate(kernels, start=1)
        )
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.fc = nn.Linear(matrix.shape[1], matrix.shape[0])
        self.to(file.dtype)
        for parameter, value in zip(self.parameters(), (*kernels, matrix, file["fc_b_init"]), strict=True):
            parameter.data.copy_(value)

    def forward(self, x: Tensor, **others: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


def layout(value: Tensor, grid: Tensor) -> str:
    """How a stored value becomes the stored map, by their shapes."""
    height, width = grid.shape[2:]
    if value.ndim == 2:
        return "bc"
    if value.ndim == 4:
        return "bchw" if value.shape == grid.shape else "bhwc"
    return f"blc prefix={value.shape[1] - height * width} grid={height}x{width}"


def load(method: UHKD, file: Arrays, suffix: str = "") -> None:
    """Gives the method the projections of a file."""
    for number, projector in enumerate(method.projectors, start=1):
        convolution = projector.layers[0]
        weight, bias = file[f"proj{number}_w{suffix}"], file[f"proj{number}_b{suffix}"]
        convolution.bias.data.copy_(bias)
        convolution.weight.data.copy_(weight[:, :, None, None])


def settings(file: Arrays, levels: int) -> dict[str, object]:
    """The hyper-parameters of a file."""
    return {
        "temperature": file.number("T"),
        "soft_weight": file.number("alpha"),
        "beta": file.number("beta"),
        "sigma": file.number("sigma"),
        "epsilon": file.number("eps"),
        "block": [file.integer(f"k{number}") for number in range(1, levels + 1)],
    }


def one_batch(file: Arrays) -> Results:
    levels = file.integer("levels")
    numbers = range(1, levels + 1)
    # `Answers` counts its layers from 0.
    values = {f"feat_s_{n - 1}": file.leaf(f"feat_s{n}") for n in numbers}
    values |= {f"feat_t_{n - 1}": file[f"feat_t{n}"] for n in numbers}
    values |= {"logits_s": file.leaf("logits_s"), "logits_t": file["logits_t"]}
    batch = {"inputs": values, "targets": file["labels"]}
    sides = {"student": "s", "teacher": "t"}
    layouts = {
        side: {
            f"layers.{n - 1}": layout(values[f"feat_{letter}_{n - 1}"], file[f"grid_{letter}{n}"])
            for n in numbers
        }
        for side, letter in sides.items()
    }

    def method(**reading: object) -> UHKD:
        networks = {side: Answers(letter, levels).to(file.dtype) for side, letter in sides.items()}
        taps = {side: list(names) for side, names in layouts.items()}
        made = UHKD(
            **networks, taps=taps, example=batch, layouts=layouts, **settings(file, levels), **reading
        ).to(file.dtype)
        load(made, file)
        return made

    plain = method()
    losses = plain(batch)
    results = {
        "ce_loss": losses.terms["hard"],
        "kl_loss": losses.terms["soft"],
        "freq_loss": sum(each(losses)),
        "total": losses.total,
        "grad_logits_s": gradient(losses.total, values["logits_s"]),
        **intermediates(plain, values),
    }
    for n, (level, projector) in enumerate(zip(plain.levels, plain.projectors, strict=True), start=1):
        convolution = projector.layers[0]
        results[f"level_loss{n}"] = losses.terms[f"freq{n}"]
        results[f"filter{n}"] = low_pass(level.size, plain.transform.sigma, torch.empty(0, dtype=file.dtype))
        results[f"grad_feat_s{n}"] = gradient(losses.total, values[f"feat_s_{n - 1}"])
        results[f"grad_proj{n}_w"] = gradient(losses.total, convolution.weight)[:, :, 0, 0]
        results[f"grad_proj{n}_b"] = gradient(losses.total, convolution.bias)
    for name, reading in READINGS.items():
        if f"{name}_losses" not in file:
            continue
        terms = each(method(**reading)(batch))
        results[f"{name}_losses"] = torch.stack(terms)
        results[f"{name}_grad_feat_s1"] = gradient(sum(terms), values["feat_s_0"])
    return results


def each(losses: Losses) -> list[Tensor]:
    """The terms of the levels, in order."""
    return [term for name, term in losses.terms.items() if name.startswith("freq")]


def intermediates(method: UHKD, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps and spectra by the names of a file."""
    number = len(method.levels)
    student = Record(None, {f"layers.{n}": values[f"feat_s_{n}"] for n in range(number)})
    teacher = Record(None, {f"layers.{n}": values[f"feat_t_{n}"] for n in range(number)})
    found: dict[str, Tensor] = {}
    spectra = method._representations(student, teacher, {"inputs": values})
    for n, (level, (own, target)) in enumerate(zip(method.levels, spectra, strict=True), start=1):
        found[f"grid_s{n}"] = level.student.to_map(student[level.student.layer])
        found[f"grid_t{n}"] = level.teacher.to_map(teacher[level.teacher.layer])
        found[f"rep_s{n}"], found[f"rep_t{n}"] = own, target
    return found


def trace(file: Arrays) -> Results:
    inputs = {"x": file["x"], "feat_t_0": file["feat_t1"], "feat_t_1": file["feat_t2"]}
    batch = {"inputs": {**inputs, "logits_t": file["logits_t"]}, "targets": file["labels"]}
    student, teacher = Network(file), Answers("t", 2).to(file.dtype)
    method = UHKD(
        student,
        teacher,
        taps={"student": ["relu1", "relu2"], "teacher": ["layers.0", "layers.1"]},
        layouts={
            "student": {"relu1": "bchw", "relu2": "bchw"},
            "teacher": {"layers.0": "blc", "layers.1": "blc"},
        },
        example=batch,
        **settings(file, 2),
    ).to(file.dtype)
    load(method, file, "_init")
    optimizer = torch.optim.SGD(method.parameters(), lr=file.number("lr"))
    seen: list[Losses] = []
    for _ in range(file.integer("steps")):
        losses = method(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        seen.append(losses)
    names = ("conv1_w", "conv2_w", "fc_w", "fc_b")
    finals = dict(zip(names, student.parameters(), strict=True))
    for number, projector in enumerate(method.projectors, start=1):
        finals[f"proj{number}_w"] = projector.layers[0].weight[:, :, 0, 0]
        finals[f"proj{number}_b"] = projector.layers[0].bias
    terms = {"ce": "hard", "kl": "soft", "freq1": "freq1", "freq2": "freq2"}
    return {
        **{f"{short}_steps": [losses.terms[name] for losses in seen] for short, name in terms.items()},
        "total_steps": [losses.total for losses in seen],
        "final_logits": student(file["x"]),
        **{f"{name}_final": value for name, value in finals.items()},
    }


CASES = (
    Case("training", needs=("x", "conv1_w_init", "freq1_steps"), results=trace, tolerance32=1e-4),
    Case("one batch", needs=("feat_s1", "feat_t1", "freq_loss"), results=one_batch, tolerance32=1e-4),
)
