"""Most pictures have no label: the teacher's answers stand in for them.

Differs from engine_fit.py: of 2,000 training labels 50 stay, the others become -1.
"""

import torch
from torch import nn

from limbeck import evaluate, fit
from limbeck.data import keep_labels, load_source
from limbeck.engine import Training
from limbeck.methods import KD, Plain

data = load_source("fashion-small", limit=2000)
settings = Training(epochs=10, batch_size=100, optimizer="Adam", learning_rate=1e-2)


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


few = keep_labels(data.train, 50, seed=0)  # 5 of each class; your own targets may hold -1 just as well
print(f"{int((few.targets() >= 0).sum())} of {len(few)} pictures have a label")

teacher = fit(Plain(network(256, seed=1)), data.train, settings=settings).method.deployable()

# All take equally many steps. Alone, the student sees the labelled pictures again and again. With the teacher
# it sees all: the loss of the labels is a mean over those that have one, that of the teacher over all.
found = {"teacher, all labels": teacher}
for name, method in {
    "alone": Plain(network(16, seed=2)),
    "kd": KD(network(16, seed=2), teacher),
    "kd without any label": KD(network(16, seed=2), teacher, alpha=1.0),
}.items():
    found[name] = fit(method, few, data.validation, settings).load("chosen").deployable()

for name, trained in found.items():
    print(f"{name:20} {evaluate(trained, data.test)['accuracy']:.1%} of the test pictures")
