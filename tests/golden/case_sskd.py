"""Cases of sskd: the loss of one stage, and the whole schedule on two stages and a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.methods import SSKD
from tests.golden import Arrays, Case, Results, gradient


class Layers(nn.Module):
    """Layers `0`, `1`, ... with ReLU after each, and a head: linear, without bias."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        *stages, head = weights
        self.stages = nn.ModuleList(linear(weight) for weight in stages)
        self.relus = nn.ModuleList(nn.ReLU() for _ in stages)
        self.head = linear(head)

    def forward(self, x: Tensor) -> Tensor:
        for stage, relu in zip(self.stages, self.relus, strict=True):
            x = relu(stage(x))
        return self.head(x)


class Stage(nn.Module):
    """A network whose one stage gives the stored feature, times a parameter that is 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stage = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        self.head = nn.Linear(channels, 2)
        self.stage.weight.data.fill_(1.0)

    def forward(self, feature: Tensor) -> Tensor:
        return self.head(self.stage(feature).mean((2, 3)))


def linear(weight: Tensor) -> nn.Linear:
    """x -> x W^T."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight.data.copy_(weight)
    return layer


class Given(nn.Module):
    """Takes one entry of several inputs."""

    def __init__(self, key: str, network: nn.Module) -> None:
        super().__init__()
        self.key = key
        self.network = network

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.network(inputs[self.key])


def feature(file: Arrays) -> Results:
    own, other = file.leaf("f_s"), file["f_t"]
    batch = {"inputs": {"student": own, "teacher": other}}
    taps = {"student": ["network.stage"], "teacher": ["network.stage"]}

    def method(reduction: str = "mean") -> SSKD:
        student, teacher = (
            Given(side, Stage(value.shape[1])).to(file.dtype)
            for side, value in (("student", own), ("teacher", other))
        )
        return SSKD(student, teacher, taps=taps, example=batch, reduction=reduction).to(file.dtype)

    def adapted(reduction: str = "mean") -> SSKD:
        """Equal widths need no adaptor; the file applies its own all the same."""
        made, weight = method(reduction), file["W"]
        made.adaptors[0] = nn.Conv2d(weight.shape[1], weight.shape[0], 1, dtype=file.dtype)
        made.adaptors[0].weight.data.copy_(weight[:, :, None, None])
        made.adaptors[0].bias.data.copy_(file["b"])
        return made

    mean = adapted()
    adaptor = mean.adaptors[0]
    loss = mean(batch, update="stage1").terms["stage1"]
    results: dict[str, Tensor] = {
        "adapted": adaptor(own),
        "loss_mean": loss,
        "loss_batchmean": adapted("batchmean")(batch, update="stage1").terms["stage1"],
        "grad_f_s": gradient(loss, own),
        "grad_W": gradient(loss, adaptor.weight)[:, :, 0, 0],
        "grad_b": gradient(loss, adaptor.bias),
    }
    if "loss_identity_mean" in file:
        plain = method()(batch, update="stage1").terms["stage1"]
        results |= {"loss_identity_mean": plain, "grad_identity": gradient(plain, own)}
    return results


def schedule(file: Arrays) -> Results:
    """Every phase by plain gradient descent on the whole data, through the stages of the method."""
    batch = (file["x"], file["labels"])
    student = Layers(file["S1_init"], file["S2_init"], torch.zeros_like(file["H_init"]))
    teacher = Layers(file["T1"], file["T2"], torch.zeros(3, len(file["T2"]), dtype=file.dtype))
    taps = {side: ["relus.0", "relus.1"] for side in ("student", "teacher")}
    method = SSKD(student, teacher, taps=taps, example=batch, adaptor_bias=False).to(file.dtype)
    for number, adaptor in enumerate(method.adaptors):
        adaptor.weight.data.copy_(file[f"A{number + 1}_init"])
    losses: dict[str, list[Tensor]] = {}
    after: dict[str, dict[str, Tensor]] = {}
    for stage in method.stages():
        method.enter(stage)
        if stage.begin is not None:
            stage.begin(None)
            student.head.weight.data.copy_(file["H_init"])  # in place of the fresh one
        update = stage.updates[0]
        optimizer = torch.optim.SGD(update.parameters(), lr=file.number("lr"))
        losses[stage.name] = []
        for _ in range(file.integer("steps")):
            loss = method(batch, update=update.name).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[stage.name].append(loss)
        after[stage.name] = {name: value.clone() for name, value in method.state_dict().items()}
    assert torch.equal(student.stages[0].weight, after["stage1"]["student.stages.0.weight"])
    said = method.teacher(method.task.batch(batch))
    return {
        "t1": said["relus.0"],
        "t2": said["relus.1"],
        "S1_p1": after["stage1"]["student.stages.0.weight"],
        "A1_p1": after["stage1"]["adaptors.0.weight"],
        "S2_p2": after["stage2"]["student.stages.1.weight"],
        "A2_p2": after["stage2"]["adaptors.1.weight"],
        "H_p3": after["head"]["student.head.weight"],
        "loss_stage1": losses["stage1"],
        "loss_stage2": losses["stage2"],
        "loss_head": losses["head"],
        "final_logits": method.deployable().eval()(file["x"]),
    }


CASES = (
    Case("schedule", needs=("x", "S1_init", "H_init"), results=schedule, tolerance=1e-10),
    Case("feature", needs=("f_s", "f_t", "W"), results=feature),
)
