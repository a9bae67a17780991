"""Cases of unikd: one batch with all its intermediates, one map with a shared head, and a short training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from limbeck.methods import UniKD
from limbeck.methods._unified import Fusion, Prediction
from limbeck.record import Losses, Record
from tests.golden import Arrays, Case, Results, gradient
from tests.golden.case_semckd import Answers

SIDES = {"student": "s", "teacher": "t"}


class Dense(nn.Module):
    """A network of the trace: three Linears without bias, ReLU after the first two."""

    def __init__(self, matrices: list[Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(m.shape[1], m.shape[0], bias=False) for m in matrices)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.to(matrices[0].dtype)
        for layer, matrix in zip(self.layers, matrices, strict=True):
            layer.weight.data.copy_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.layers[0](x))
        return self.layers[2](self.relu2(self.layers[1](x)))


def parameters(method: UniKD) -> dict[str, nn.Parameter]:
    """The weights of the heads by the names of a file."""
    heads = method.heads
    found: dict[str, nn.Parameter] = {}
    for letter, fusion in (("s", heads.fusion), ("t", heads.teacher_fusion)):
        if isinstance(fusion, Fusion):
            last = len(fusion.reduce) - 1
            found |= {f"aff_{letter}{n}_conv1": layer.weight for n, layer in enumerate(fusion.reduce)}
            for number, gate in enumerate(fusion.gates, start=1):
                found[f"aff_{letter}{number}_att_w"] = gate.weight
                found[f"aff_{letter}{number}_att_b"] = gate.bias
            found[f"aff_{letter}{last}_conv2"] = fusion.out.weight
        elif fusion is not None:
            found |= {"reg_w": fusion.out.weight, "reg_b": fusion.out.bias}
    shared = heads.teacher_prediction is None
    for prefix, prediction in (("fdp_s", heads.prediction), ("fdp_t", heads.teacher_prediction)):
        if isinstance(prediction, Prediction):
            name = "fdp" if shared else prefix
            found |= {f"{name}_mu_w": prediction.mean.weight, f"{name}_mu_b": prediction.mean.bias}
            logs = prediction.log_variance
            found |= {f"{name}_var_w": logs.weight, f"{name}_var_b": logs.bias}
    return found


def load(method: UniKD, file: Arrays, suffix: str = "") -> UniKD:
    """The method with the weights of a file."""
    for name, parameter in parameters(method).items():
        parameter.data.copy_(file[f"{name}{suffix}"])
    return method


def unused(file: Arrays, suffix: str = "") -> dict[str, Tensor]:
    """The 3x3 convolutions of the deeper levels, which no loss reads: the method has none."""
    names = file.names(f"aff_[st][0-9]_conv2{suffix}")
    last = max(int(name[5]) for name in names)
    return {name.removesuffix(suffix): file[name] for name in names if int(name[5]) < last}


def one_batch(file: Arrays) -> Results:
    number = len(file.names("f[0-9]_s"))
    names = [*(f"f{n}" for n in range(1, number + 1)), "pooled"]
    values = {f"feat_s_{i}": file.leaf(f"{name}_s") for i, name in enumerate(names)}
    values |= {f"feat_t_{i}": file[f"{name}_t"] for i, name in enumerate(names)}
    values |= {"logits_s": file.leaf("logits_s"), "logits_t": file["logits_t"]}
    noise = {side: file[f"eps_{letter}"] for side, letter in SIDES.items()}
    batch = {"inputs": values, "targets": file["labels"], "noise": noise}
    layers = {f"layers.{i}": "bc" if name == "pooled" else "bchw" for i, name in enumerate(names)}
    hard, logits, feature, supp = file["weights"].tolist()

    def method(**reading: object) -> UniKD:
        networks = {side: Answers(letter, number + 1).to(file.dtype) for side, letter in SIDES.items()}
        made = UniKD(
            **networks,
            taps={side: list(layers) for side in SIDES},
            layouts=dict.fromkeys(SIDES, layers),
            example=batch,
            teacher_feature="aff" if "aff_t0_conv1" in file else "first_stage",
            sizes=[int(size) for size in file["sizes"]],
            temperature=file.number("temperature"),
            feature_temperature=file.number("temperature_feature"),
            hard_weight=hard,
            logits_weight=logits,
            feature_weight=feature,
            supp_weight=supp,
            **reading,
        ).to(file.dtype)
        made.epoch = file.integer("epoch")
        return load(made, file)

    decoupled = {"target_weight": file.number("alpha"), "non_target_weight": file.number("beta")}
    plain = method(logits="dkd", warmup=file.number("warmup"), **decoupled)
    losses, detached = plain(batch), method(detach_targets=True)
    fixed = detached(batch)
    shapes = plain.shapes
    results = {
        **terms(losses),
        "loss_dkd": losses.terms["soft"],
        "loss_kd": fixed.terms["soft"],
        "total": losses.total,
        "total_kd": fixed.total,
        "in_channels": torch.tensor([shape[1] for shape in shapes["student"].values()]),
        "out_channels": torch.tensor([shape[1] for shape in shapes["teacher"].values()]),
        "mid_channel": torch.tensor(plain.heads.fusion.out.in_channels),
        **intermediates(plain, values, batch),
        **gaussian(method(constraint="gaussian"), values, batch),
    }
    leaves = {"logits_s": values["logits_s"]}
    leaves |= {f"{name}_s": values[f"feat_s_{i}"] for i, name in enumerate(names)}
    for name, leaf in {**leaves, **parameters(plain)}.items():
        results[f"grad_{name}"] = gradient(losses.total, leaf)
    for name, weight in unused(file).items():
        results[f"grad_{name}"] = torch.zeros_like(weight)
    for name, leaf in {**leaves, **parameters(detached)}.items():
        if f"grad_kd_detached_{name}" in file:
            results[f"grad_kd_detached_{name}"] = gradient(fixed.total, leaf)
    return results


def terms(losses: Losses) -> dict[str, Tensor]:
    """The terms that all kinds of one batch hold."""
    names = {"ce": "hard", "feature": "feature", "supp_s": "supp_student", "supp_t": "supp_teacher"}
    return {f"loss_{short}": losses.terms[name] for short, name in names.items() if name in losses.terms}


def records(values: Mapping[str, Tensor]) -> list[Record]:
    """What `Answers` says of stored values, by network."""
    found = []
    for letter in SIDES.values():
        layers = {n.replace(f"feat_{letter}_", "layers."): v for n, v in values.items() if f"_{letter}_" in n}
        found.append(Record(values[f"logits_{letter}"], layers))
    return found


def intermediates(method: UniKD, values: Mapping[str, Tensor], batch: Mapping[str, object]) -> Results:
    """Residuals, maps, Gaussians and samples by the names of a file."""
    student, teacher = records(values)
    said = method.heads(student, teacher, batch, look=True)
    found: dict[str, Tensor] = {}
    fusion = method.heads.fusion
    if isinstance(fusion, Fusion):
        own = [tap.to_map(student[tap.layer]) for tap in method.heads.student_levels]
        found |= {f"residual_s{n}": value for n, value in enumerate(fusion.residuals(own))}
        found["fused_s"] = said.maps[0]
    if method.heads.teacher_fusion is not None:
        found["fused_t"] = said.maps[1]
    for letter, side, one in (("s", "student", said.student), ("t", "teacher", said.teacher)):
        found |= {f"mu_{letter}": one.mean, f"logvar_{letter}": one.log_variance}
        found[f"z_{letter}"] = one.sample(method.noise(side, batch, one.mean, None))
    return found


def gaussian(method: UniKD, values: Mapping[str, Tensor], batch: Mapping[str, object]) -> Results:
    """The other constraint, and its gradient for the student's Gaussian."""
    said = method.heads(*records(values), batch, look=True)
    own, other = said.student, said.teacher
    loss = method._feature(own, other, own.mean, other.mean, len(own.mean))
    torch.testing.assert_close(loss, method(batch).terms["feature"])
    return {
        "loss_gaussian_kl": loss,
        "grad_gaussian_kl_mu_s": gradient(loss, own.mean),
        "grad_gaussian_kl_logvar_s": gradient(loss, own.log_variance),
    }


def shared(file: Arrays) -> Results:
    """One map of each network, one head for both."""
    values = {"feat_s_0": file.leaf("f_s"), "feat_t_0": file["f_t"]}
    values |= {"logits_s": file.leaf("logits_s"), "logits_t": file["logits_t"]}
    noise = {side: file[f"eps_{letter}"] for side, letter in SIDES.items()}
    batch = {"inputs": values, "targets": file["labels"], "noise": noise}
    method = UniKD(
        **{side: Answers(letter, 1).to(file.dtype) for side, letter in SIDES.items()},
        taps={side: ["layers.0"] for side in SIDES},
        layouts={side: {"layers.0": "bchw"} for side in SIDES},
        example=batch,
        teacher_feature="last_stage",
        temperature=file.number("temperature"),
        feature_temperature=file.number("temperature"),
        supp_weight=0.0,
    ).to(file.dtype)
    losses = load(method, file)(batch)
    leaves = {"f_s": values["feat_s_0"], "logits_s": values["logits_s"], **parameters(method)}
    return {
        **terms(losses),
        "loss_kd": losses.terms["soft"],
        "total": losses.total,
        **intermediates(method, values, batch),
        **{f"grad_{name}": gradient(losses.total, leaf) for name, leaf in leaves.items()},
    }


def trace(file: Arrays) -> Results:
    student = Dense([file[f"A{n}_init"] for n in (1, 2, 3)])
    teacher = Dense([file[f"T{n}"] for n in (1, 2, 3)])
    batch = {"inputs": file["x"], "targets": file["labels"]}
    hard, logits, feature, supp = file["weights"].tolist()
    method = UniKD(
        student,
        teacher,
        taps={side: ["relu1", "relu2"] for side in SIDES},
        example=batch,
        teacher_preact=False,
        temperature=file.number("temperature"),
        feature_temperature=file.number("temperature"),
        hard_weight=hard,
        logits_weight=logits,
        feature_weight=feature,
        supp_weight=supp,
    ).to(file.dtype)
    load(method, file, "_init")
    optimizer = torch.optim.SGD(method.parameters(), lr=file.number("lr"))
    rows = []
    for eps in file["eps"][: file.integer("steps")]:
        losses = method({**batch, "noise": dict(zip(SIDES, eps, strict=True))})
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        said = losses.terms
        both = said["supp_student"] + said["supp_teacher"]
        rows.append(torch.stack([said["hard"], said["soft"], said["feature"], both, losses.total]))
    return {
        "losses": torch.stack(rows),
        "final_logits": student(file["x"]),
        **{f"A{n}_end": layer.weight for n, layer in enumerate(student.layers, start=1)},
        **{f"{name}_end": value for name, value in parameters(method).items()},
        **{f"{name}_end": value for name, value in unused(file, "_init").items()},
    }


CASES = (
    Case("training", needs=("x", "A1_init", "eps"), results=trace, tolerance=1e-8, tolerance32=1e-4),
    Case("shared head", needs=("f_s", "f_t", "reg_w"), results=shared, tolerance=1e-8, tolerance32=1e-4),
    Case("one batch", needs=("f1_s", "pooled_s"), results=one_batch, tolerance=1e-8, tolerance32=1e-4),
)
