"""Sequences with padding: a class for every token, and what is padding counts nowhere.

Differs from engine_fit.py: `task=Tokens()`, keyword inputs, targets of -100 at the padding.
"""

import torch
from torch import Tensor, nn

from limbeck import evaluate, fit
from limbeck.data import ArrayDataset
from limbeck.engine import Training
from limbeck.methods import KD, Plain
from limbeck.task import Tokens

WORDS, LENGTH = 20, 12
task = Tokens()  # Tokens(causal=True) for language models: position i is judged against target i + 1
settings = Training(epochs=10, batch_size=32, optimizer="Adam", learning_rate=1e-2)


class Tagger(nn.Module):
    def __init__(self, width: int, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(WORDS, width)
        self.body = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, WORDS)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids [B, L] to logits [B, L, V]. Of keyword inputs, a network gets those that it declares."""
        return self.head(self.body(self.embedding(input_ids))[0])


def sentences(number: int, seed: int) -> ArrayDataset:
    """Sentences of 5 to 12 words; the class of a word is the word before it."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, WORDS, (number, LENGTH), generator=draw)
    targets = torch.cat([torch.zeros(number, 1, dtype=torch.long), ids[:, :-1]], 1)
    padding = torch.arange(LENGTH) >= torch.randint(5, LENGTH + 1, (number, 1), generator=draw)
    return ArrayDataset({"input_ids": ids.masked_fill(padding, 0)}, targets.masked_fill(padding, -100))


train, validation, test = sentences(512, seed=0), sentences(128, seed=1), sentences(256, seed=2)
teacher = fit(Plain(Tagger(96, seed=1), task=task), train, settings=settings).method.deployable()

# `reduction`: "token_mean" counts every token alike, "sequence_mean" every sentence alike.
method = KD(Tagger(32, seed=2), teacher, task=task, temperature=2.0, reduction="token_mean")
student = fit(method, train, validation, settings).load("chosen").deployable()
for name, found in {"teacher": teacher, "student": student}.items():
    print(f"{name}: {evaluate(found, test, task)['token_accuracy']:.1%} of the tokens of the test sentences")
