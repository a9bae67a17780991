"""Cases of simkd: one batch with all its intermediates, and a short training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from limbeck.methods import SimKD
from limbeck.methods._composed import Tail
from limbeck.methods._reuse import aligned
from tests.golden import Arrays, Case, Results, gradient

#: Places of the convolutions and batch norms in a projector, by their names in a file.
PLACES = {"W1": 0, "bn1": 1, "W2": 3, "bn2": 4, "W3": 6, "bn3": 7}
VALUES = ("weight", "bias", "running_mean", "running_var")


class Given(nn.Module):
    """A network whose last map is one of its inputs; its mean enters `fc`."""

    def __init__(self, name: str, classifier: nn.Linear) -> None:
        super().__init__()
        self.name = name
        self.one = nn.Parameter(torch.ones(()))
        self.layer = nn.Identity()
        self.fc = classifier

    def forward(self, **values: Tensor) -> Tensor:
        return self.fc(self.layer(values[self.name] * self.one).mean((2, 3)))


class Network(nn.Module):
    """The networks of the trace: convolution, batch norm, ReLU, mean, `fc`."""

    def __init__(self, kernel: Tensor, stride: int, classifier: nn.Linear) -> None:
        super().__init__()
        width, channels = kernel.shape[:2]
        self.conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.fc = classifier
        self.to(kernel.dtype)
        self.conv.weight.data.copy_(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.bn(self.conv(x))).mean((2, 3)))


def linear(file: Arrays) -> nn.Linear:
    """The teacher's classifier."""
    weight, bias = file["cls_weight"], file["cls_bias"]
    made = nn.Linear(weight.shape[1], weight.shape[0]).to(file.dtype)
    made.weight.data.copy_(weight)
    made.bias.data.copy_(bias)
    return made


def fill(norm: nn.BatchNorm2d, file: Arrays, name: str) -> None:
    """A batch norm with the stored values."""
    for value in VALUES:
        getattr(norm, value).data.copy_(file[f"{name}_{value}"])
    norm.eps, norm.momentum = file.number("bn_eps"), file.number("bn_momentum")


def load(method: SimKD, file: Arrays, prefix: str = "") -> nn.Sequential:
    """The projector with the values of a file."""
    method.to(file.dtype)
    layers = method.tails[0].projector.layers
    for name, place in PLACES.items():
        if name.startswith("bn"):
            fill(layers[place], file, prefix + name)
        else:
            layers[place].weight.data.copy_(file[prefix + name])
    return layers


def parameters(layers: nn.Sequential) -> dict[str, Tensor]:
    """Trained values of a projector by their names in a file."""
    found: dict[str, Tensor] = {}
    for name, place in PLACES.items():
        if name.startswith("bn"):
            found |= {f"{name}_weight": layers[place].weight, f"{name}_bias": layers[place].bias}
        else:
            found[name] = layers[place].weight
    return found


def statistics(layers: nn.Sequential) -> Mapping[str, Tensor]:
    """Running statistics of a projector by their names in a file."""
    norms = {name: layers[place] for name, place in PLACES.items() if name.startswith("bn")}
    return {
        f"{name}_{value}": getattr(norm, value).clone()
        for name, norm in norms.items()
        for value in VALUES[2:]
    }


def one_batch(file: Arrays) -> Results:
    student, teacher = file.leaf("feat_s"), file["feat_t"]
    batch = {"inputs": {"feat_s": student, "feat_t": teacher}}
    classifier = linear(file)
    own = nn.Linear(student.shape[1], classifier.out_features).to(file.dtype)
    layouts = {"student": {"layer": "bchw"}, "teacher": {"layer": "bchw"}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "simkd averages 7 x 7 to 3 x 3")  # as the file of batch 1 does
        method = SimKD(
            Given("feat_s", own).to(file.dtype),
            Given("feat_t", classifier).to(file.dtype),
            taps={"student": ["layer"], "teacher": ["layer"]},
            example={"inputs": {name: value.detach() for name, value in batch["inputs"].items()}},
            factor=file.integer("factor"),
            layouts=layouts,
        )
    layers = load(method, file)
    method.enter(method.stages()[0])
    loss = method(batch).terms["simkd"]
    after = statistics(layers)
    tail = method.tails[0]
    assert isinstance(tail, Tail)
    source, target = aligned(student, teacher, "layer", "layer")
    projected = layers(source)
    for name, place in PLACES.items():
        if name.startswith("bn"):
            for value in VALUES[2:]:
                getattr(layers[place], value).data.copy_(after[f"{name}_{value}"])
    results = {
        "loss": loss,
        "grad_feat_s": gradient(loss, student),
        "source": source,
        "target": target,
        "hidden1": layers[:3](source),
        "hidden2": layers[:6](source),
        "projected": projected,
        "pooled": projected.mean((2, 3)),
        "pred": tail.answer(projected),
        "teacher_logits": tail.answer(teacher),
        "target_logits": tail.answer(target),
        **{f"grad_{name}": gradient(loss, value) for name, value in parameters(layers).items()},
        **{f"after_{name}": value for name, value in after.items()},
    }
    for name, place in PLACES.items():
        if name.startswith("bn"):
            for value in VALUES[2:]:
                getattr(layers[place], value).data.copy_(after[f"{name}_{value}"])
    deployed = method.deployable().eval()
    results["eval_projected"] = layers.eval()(source)
    results["eval_pred"] = deployed(**batch["inputs"])
    return results


def trace(file: Arrays) -> Results:
    x, size = file["x"], file.integer("batch_size")
    teacher = Network(file["tea_W"], 1, linear(file))
    fill(teacher.bn, file, "tea_bn")
    student = Network(file["init_enc_W"], 2, nn.Linear(4, 3))
    fill(student.bn, file, "init_enc_bn")
    method = SimKD(student, teacher, example={"inputs": x[:size]}, factor=file.integer("factor"))
    layers = load(method, file, "init_")
    stage = method.stages()[0]
    method.enter(stage)
    optimizer = torch.optim.SGD(
        list(stage.updates[0].parameters()),
        lr=file.number("lr"),
        momentum=file.number("momentum"),
        weight_decay=file.number("weight_decay"),
    )
    losses = []
    for step in range(file.integer("steps")):
        first = size * step % len(x)
        loss = method({"inputs": x[first : first + size]}).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    finals = {"enc_W": student.conv.weight, **parameters(layers), **statistics(layers)}
    finals |= {f"enc_bn_{value}": getattr(student.bn, value) for value in VALUES}
    method.eval()
    return {
        "losses": losses,
        **{f"final_{name}": value for name, value in finals.items()},
        "final_eval_loss": method({"inputs": x}).total,
        "deployed_logits": method.deployable().eval()(x),
        "teacher_logits": teacher(x),
    }


CASES = (
    Case("training", needs=("x", "init_enc_W", "losses"), results=trace),
    Case("one batch", needs=("feat_s", "feat_t", "loss"), results=one_batch),
)
