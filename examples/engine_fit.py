"""The engine in place of the loop: validation chooses the epoch; a run that stopped goes on to the same bits.

Differs from own_loop.py: `limbeck.fit` trains, and the second run is stopped on the way and resumed.
"""

import signal

import torch
from torch import nn

from limbeck import evaluate, fit
from limbeck.data import load_source
from limbeck.engine import Listener, Training
from limbeck.engine.interruption import Interruption
from limbeck.errors import Interrupted
from limbeck.methods import KD, Plain

data = load_source("fashion-small", limit=1000)
settings = Training(epochs=6, batch_size=50, optimizer="Adam", learning_rate=1e-2)


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU(), nn.Linear(width, 10))


teacher = fit(Plain(network(512, seed=1)), data.train, settings=settings).method.deployable()


class Screen(Listener):
    def on_epoch(self, event):
        score = event.scores["student"]["accuracy"]
        print(f"epoch {event.epoch}/{event.epochs}  soft {event.terms['soft']:.3f}  validation {score:.1%}")


class StopInTheFourth(Screen):
    def on_step(self, event):
        if (event.epoch, event.step) == (4, 7):  # as Ctrl-C would inside `with interruption.listening()`
            interruption.signal_number = signal.SIGINT


def distil(folder: str, **given):
    method = KD(network(16, seed=2), teacher)
    return fit(method, data.train, data.validation, settings, folder=folder, **given)


whole = distil("whole", listener=Screen())
interruption = Interruption()
try:
    distil("cut", listener=StopInTheFourth(), interruption=interruption)
except Interrupted as stopped:
    print(stopped)
resumed = distil("cut", listener=Screen(), resume=True)

for name, value in whole.weights["last"].items():
    assert torch.equal(value, resumed.weights["last"][name])  # bit for bit
student = resumed.load("chosen").deployable()
print(f"epoch {resumed.chosen_epoch} is kept, test {evaluate(student, data.test)['accuracy']:.1%}")
