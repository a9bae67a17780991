"""Several students and their teacher, trained together; one student is kept, or their ensemble.

Differs from engine_fit.py: `PeerMutualKD`, an update a network in every step, and several scores.
"""

import torch
from torch import nn

from limbeck import evaluate, fit
from limbeck.data import load_source
from limbeck.engine import Training
from limbeck.methods import PeerMutualKD

data = load_source("fashion-small", limit=1000)
settings = Training(epochs=6, batch_size=50, optimizer="Adam", learning_rate=3e-3)


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


method = PeerMutualKD(
    students=[network(16, seed=1), network(24, seed=2), network(32, seed=3)],  # any architectures
    teacher=network(256, seed=4),  # not trained yet: it learns along, from the labels
    order="sequential",
    deploy="best",  # or "ensemble", or the number of a student
)
print("updates of a step:", [update.name for update in method.stages()[0].updates])

done = fit(method, data.train, data.validation, settings)
for name, scores in done.chosen_scores.items():
    print(f"{name:9} validation {scores['accuracy']:.1%}")

method = done.load("chosen")
scores = evaluate(method.deployable(), data.test)
print(f"kept: student{method.best_student()}, {scores['accuracy']:.1%} of the test pictures")
