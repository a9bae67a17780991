"""`own_loop.py` with a teacher that answers once for each view; every later epoch and run reads that."""

import torch
from torch import nn

from limbeck import CachedTeacher, evaluate
from limbeck.data import Loader, Views, load_source
from limbeck.methods import KD, Plain

VIEWS = 2  # of every picture, in turn: more of them cost more answers of the teacher, once

torch.manual_seed(0)
data = load_source("fashion-small", limit=1000)
train = data.train.augment(Views(seed=0, augment=["crop"]))  # batches with inputs, targets, index and view


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


def fit(method: nn.Module, epochs: int) -> None:
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for (batch,) in Loader(train, 50, seed=0, epoch=epoch, view=1 + epoch % VIEWS):
            losses = method(batch)
            losses.total.backward()
            optimizer.step()
            optimizer.zero_grad()


teacher = network(512)
fit(Plain(teacher), epochs=10)

cached = CachedTeacher(teacher, "teacher-cache", train)  # nothing is computed yet
written = cached.fill([1, 2])  # or at the first batch that asks for a view
print(f"{written:,} answers written, {cached.bytes_of([1, 2]) / 1e3:.0f} kB")

for temperature in (2.0, 4.0):  # both read the same answers
    student = network(16)
    fit(KD(student, cached, temperature=temperature), epochs=10)
    print(f"temperature {temperature}: {evaluate(student, data.test)['accuracy']:.1%} of the test pictures")
