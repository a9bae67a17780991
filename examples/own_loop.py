"""Distillation in a loop of your own: `losses = method(batch)` is all that changes."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Method, evaluate
from limbeck.data import load_source
from limbeck.methods import KD, Plain

torch.manual_seed(0)
data = load_source("fashion-small", limit=1000)  # pictures of clothes that come with the package
batch = data.train.batch(range(len(data.train)))
loader = DataLoader(TensorDataset(batch["inputs"], batch["targets"]), batch_size=50, shuffle=True)


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


def train(method: Method, epochs: int) -> None:
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in loader:
            losses = method(batch)
            losses.total.backward()
            optimizer.step()
            optimizer.zero_grad()
    print({name: round(term.item(), 3) for name, term in losses.terms.items()}, "in the last step")


teacher, student = network(512), network(16)
train(Plain(teacher), epochs=10)

method = KD(student, teacher, temperature=4.0)
train(method, epochs=10)

small = method.deployable().eval()  # a copy of the student, without anything of the method
torch.save(small.state_dict(), "student.pt")
for name, found in {"teacher": teacher, "student": small}.items():
    print(f"{name:8} {sum(p.numel() for p in found.parameters()):>7,} parameters", end="  ")
    print(f"{evaluate(found, data.test)['accuracy']:.1%} of the test pictures")
