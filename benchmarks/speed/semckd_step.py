"""A step of SemCKD against a hand-written loop with the same maths, side by side.

    python benchmarks/speed/semckd_step.py --json benchmarks/results/semckd_step.json

Both train the same networks from the same weights on the same batches: a residual teacher with stages of
16, 32 and 64 channels, a student with 8, 16 and 32, 32x32 pictures, batch 64, 9 projections, SGD. The loop
below is what one writes who needs SemCKD once: no checks, no notes, no records. Steps alternate, which goes
first does too, and the figure is the median of the ratios of neighbours. Losses that differ stop it.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.methods import SemCKD
from limbeck.task import Classification

BATCH, CLASSES = 64, 100
TAPS = {side: ["layer1", "layer2", "layer3"] for side in ("student", "teacher")}


class Residual(nn.Module):
    """Two convolutions and a short cut."""

    def __init__(self, wide: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.short = nn.Conv2d(wide, out, 1, stride, bias=False) if wide != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.short(x))


class Network(nn.Module):
    """A small residual network for 32x32 pictures with three stages."""

    def __init__(self, widths: tuple[int, int, int], blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        wide = widths[0]
        for number, out in enumerate(widths, start=1):
            first = Residual(wide, out, 1 if number == 1 else 2)
            self.add_module(
                f"layer{number}", nn.Sequential(first, *(Residual(out, out, 1) for _ in range(blocks - 1)))
            )
            wide = out
        self.fc = nn.Linear(wide, CLASSES)

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The three maps and the logits."""
        one = self.layer1(F.relu(self.stem(x)))
        two = self.layer2(one)
        three = self.layer3(two)
        return [one, two, three], self.fc(three.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        return self.features(x)[1]


def by_hand(student: Network, teacher: Network, method: SemCKD) -> Callable[[Tensor, Tensor], Tensor]:
    """The same loss in one function, on modules of equal shapes and weights."""
    association, projections = copy.deepcopy(method.association), copy.deepcopy(method.projections)
    extra = nn.ModuleList([association, projections]).train()
    teacher.eval().requires_grad_(False)
    queries = [nn.Sequential(q.hidden, nn.ReLU(), q.out) for q in association.queries]
    keys = [nn.Sequential(k.hidden, nn.ReLU(), k.out) for k in association.keys]
    project = [[pair.layers for pair in row] for row in projections]

    def embedded(networks: list[nn.Sequential], maps: list[Tensor]) -> Tensor:
        rows = []
        for network, value in zip(networks, maps, strict=True):
            flat = value.flatten(1)
            rows.append(F.normalize(network(flat @ flat.t()), dim=1))
        return torch.stack(rows, 1)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            others, target = teacher.features(x)
        own, logits = student.features(x)
        energies = torch.einsum("nid,njd->nij", embedded(queries, own), embedded(keys, others))
        attention = energies.softmax(2)
        total = logits.new_zeros(())
        for i, f in enumerate(own):
            for j, g in enumerate(others):
                if f.shape[2] > g.shape[2]:
                    error = (project[i][j](F.adaptive_avg_pool2d(f, g.shape[2:])) - g).square()
                elif f.shape[2] < g.shape[2]:
                    error = (project[i][j](f) - F.adaptive_avg_pool2d(g, f.shape[2:])).square()
                else:
                    error = (project[i][j](f) - g).square()
                total = total + (attention[:, i, j] * error.flatten(1).mean(1)).sum()
        soft = F.kl_div(
            (logits / 4).log_softmax(1), (target / 4).log_softmax(1), log_target=True, reduction="sum"
        )
        return F.cross_entropy(logits, y) + 16 * soft / len(x) + 400 * total / (len(x) * len(own))

    loss.parameters = [*student.parameters(), *extra.parameters()]  # type: ignore[attr-defined]
    return loss


def stepper(
    loss: Callable[[Tensor, Tensor], Tensor], parameters: list[nn.Parameter]
) -> Callable[[Tensor, Tensor], float]:
    """One whole step: forward, backward, SGD."""
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step(x: Tensor, y: Tensor) -> float:
        value = loss(x, y)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(value.detach())

    return step


def prepare() -> tuple[dict[str, Callable[[Tensor, Tensor], float]], list[tuple[Tensor, Tensor]]]:
    """Both steps on equal weights, and the batches."""
    torch.manual_seed(0)
    student, teacher = Network((8, 16, 32), 1), Network((16, 32, 64), 2)
    batches = [(torch.rand(BATCH, 3, 32, 32), torch.randint(0, CLASSES, (BATCH,))) for _ in range(4)]
    other = copy.deepcopy(student), copy.deepcopy(teacher)
    method = SemCKD(student, teacher, task=Classification(CLASSES), taps=TAPS, example=batches[0])
    hand = by_hand(*other, method)
    (stage,) = method.stages()
    method.enter(stage)
    ours = stepper(lambda x, y: method((x, y)).total, list(stage.updates[0].parameters()))
    return {"limbeck": ours, "by_hand": stepper(hand, hand.parameters)}, batches  # type: ignore[attr-defined]


def measure(rounds: int, warmup: int) -> dict[str, object]:
    """Times both, alternating."""
    steps, batches = prepare()
    times: dict[str, list[float]] = {name: [] for name in steps}
    gap = 0.0
    for number in range(warmup + rounds):
        x, y = batches[number % len(batches)]
        values = {}
        for name in sorted(steps, reverse=bool(number % 2)):
            start = time.perf_counter()
            values[name] = steps[name](x, y)
            if number >= warmup:
                times[name].append(time.perf_counter() - start)
        if number < 5:  # later, rounding of the steps before has grown
            gap = max(gap, abs(values["limbeck"] / values["by_hand"] - 1))
            if gap > 1e-4:
                raise SystemExit(f"the two losses differ by {gap:.1e}: not the same maths")
    ratios = sorted(a / b for a, b in zip(times["limbeck"], times["by_hand"], strict=True))
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(ratios[len(ratios) // 4], 4), round(ratios[3 * len(ratios) // 4], 4)],
        "seconds": {name: round(statistics.median(values), 5) for name, values in times.items()},
        "largest_relative_difference_of_losses": gap,
        "rounds": rounds,
        "warmup": warmup,
    }


def processor() -> str:
    """The name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the result goes")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = measure(given.rounds, given.warmup)
    found |= {
        "limit": 1.05,
        "batch": BATCH,
        "threads": given.threads,
        "torch": torch.__version__,
        "processor": processor(),
        "python": platform.python_version(),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
