"""One student, several teachers: their softened predictions are mixed.

Differs from engine_fit.py: `teachers=[...]` in place of `teacher`.
"""

import torch
from torch import nn

from limbeck import evaluate, fit
from limbeck.data import load_source
from limbeck.engine import Training
from limbeck.methods import KD, Plain

data = load_source("fashion-small", limit=1000)
settings = Training(epochs=6, batch_size=50, optimizer="Adam", learning_rate=1e-2)


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


# Three teachers that know different things: each was trained on a third of the pictures.
teachers = []
for number in range(3):
    part = data.train.subset(range(number, len(data.train), 3))
    taught = fit(Plain(network(256, seed=number)), part, settings=settings)
    teachers.append(taught.method.deployable())

method = KD(
    network(16, seed=9),
    teachers=teachers,
    mixing="arithmetic",  # or "geometric": the mean of their log probabilities
    teacher_weights=[0.4, 0.3, 0.3],  # equal unless given
)
student = fit(method, data.train, data.validation, settings).load("chosen").deployable()

for name, found in {**{f"teacher {n}": t for n, t in enumerate(teachers)}, "student": student}.items():
    print(f"{name:10} {evaluate(found, data.test)['accuracy']:.1%} of the test pictures")
