"""A method of your own: a card, a constructor, the loss. The engine and the contract suite take it as it is.

Differs from own_loop.py: the class, and `limbeck.fit` in place of the loop.
In a recipe it is `[method] name = "own_method:MatchLogits"`.
"""

import torch
from torch import nn

from limbeck import Card, Losses, Method, fit
from limbeck.contract import run
from limbeck.data import load_source
from limbeck.engine import Training
from limbeck.methods import Plain
from limbeck.task import denominator


class MatchLogits(Method):
    """The student's logits follow the teacher's, by squared error (Ba and Caruana 2014)."""

    card = Card(
        slug="match_logits",
        title="Regression on logits",
        paper="Ba, Caruana: Do Deep Nets Really Need to be Deep? NeurIPS 2014, arXiv 1312.6184",
        equations=("L = hard_weight * CE(z, y) + 1/(2B) * sum_b |z_b - v_b|^2",),
        tasks=("classes",),
        needs=("labels",),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={"hard_weight": ">= 0, weight of the labels; the paper uses none; 0.1"},
        minimum={"logits": 0.0},
    )

    def __init__(self, student, teacher, *, task=None, hard_weight: float = 0.1):
        super().__init__(student, teacher, task=task)
        self.hard_weight = hard_weight

    def losses(self, student, teacher, batch):
        squares = (student.output - teacher.output).float().square().sum()
        logits = squares / (2 * denominator(batch, "samples", len(student.output)))
        hard = self.task.loss(student.output, batch)
        return Losses({"hard": hard, "logits": logits}, {"hard": self.hard_weight, "logits": 1.0})


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


if __name__ == "__main__":
    data = load_source("fashion-small", limit=1000)
    torch.manual_seed(0)
    teacher, student = network(512), network(64)
    settings = Training(epochs=20, batch_size=50, optimizer="Adam", learning_rate=3e-3)
    fit(Plain(teacher), data.train, settings=settings)
    done = fit(MatchLogits(student, teacher), data.train, data.validation, settings)
    print(done.chosen_scores)
    results = run("own_method:MatchLogits")  # the same as: python -m limbeck.contract own_method:MatchLogits
    print(*results, sep="\n")
    raise SystemExit(any(result.outcome == "failed" for result in results))
