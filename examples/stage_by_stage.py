"""Several phases of training: the backbone stage by stage, then the head. The engine runs what a method asks.

Differs from semckd_layers.py: `SSKD`, whose `stages()` are several, each with an optimizer of its own.
"""

import torch

from limbeck import evaluate, fit
from limbeck.data import load_source
from limbeck.engine import Listener, Training
from limbeck.methods import SSKD, Plain
from limbeck.models import build

data = load_source("fashion-small", limit=1000)
settings = Training(epochs=16, batch_size=50, optimizer="Adam", learning_rate=1e-2)
example = data.train.batch(range(settings.batch_size))


def network(*widths: int) -> torch.nn.Module:
    torch.manual_seed(widths[0])
    return build("cnn-tiny", num_classes=10, channels=1, size=28, options={"widths": widths})


class Screen(Listener):
    def on_stage(self, event):
        print(f"{event.name}: {event.epochs} epochs, {event.trainable:,} parameters train")

    def on_epoch(self, event):
        print(f"  epoch {event.epoch}", {name: round(value, 4) for name, value in event.terms.items()})


teacher = fit(Plain(network(16, 32, 48, 80)), data.train, settings=settings).method.deployable()

paths = ["layer1", "layer2", "layer3"]  # the last layer of each stage, from input to output
method = SSKD(
    network(8, 16, 24, 40),
    teacher,
    taps={"student": paths, "teacher": paths},
    example=example,
    phase_epochs=[4, 4, 4, 4],  # of the three stages and the head; equal shares unless given
)
done = fit(method, data.train, data.validation, settings, listener=Screen())

# Only the head's phase uses labels, so only it is scored, and it chooses the epoch.
student = done.load("chosen").deployable()
print(f"teacher: {evaluate(teacher, data.test)['accuracy']:.1%} of the test pictures")
print(f"student: {evaluate(student, data.test)['accuracy']:.1%}, epoch {done.chosen_epoch} of the head")
