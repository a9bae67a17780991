"""A method that reads layers: proposed from one batch, or named by you.

Differs from engine_fit.py: convolutional networks, `SemCKD`, `taps` and `example`.
"""

import torch

from limbeck import evaluate, fit, list_layers
from limbeck.data import load_source
from limbeck.engine import Training
from limbeck.methods import Plain, SemCKD
from limbeck.models import build

data = load_source("fashion-small", limit=1000)
settings = Training(epochs=8, batch_size=50, optimizer="Adam", learning_rate=1e-2)
example = data.train.batch(range(settings.batch_size))  # sizes what the method adds to the student


def network(*widths: int) -> torch.nn.Module:
    torch.manual_seed(widths[0])
    return build("cnn-tiny", num_classes=10, channels=1, size=28, options={"widths": widths})


teacher = fit(Plain(network(16, 32, 48, 80)), data.train, settings=settings).method.deployable()
print(list_layers(teacher, size=28, channels=1))

proposed = SemCKD(network(8, 16, 24, 40), teacher, example=example)
print("proposed:", proposed.tapped)

method = SemCKD(
    network(8, 16, 24, 40),
    teacher,
    taps={"student": ["layer2", "layer3"], "teacher": ["layer1", "layer2", "layer3"]},
    example=example,
    beta=50.0,  # 400 in the paper, for larger networks: `beta * semckd` shall be about as large as `hard`
)
done = fit(method, data.train, data.validation, settings)

last = done.history[-1]
print("terms:", {name: round(value, 3) for name, value in last["terms"].items()})
print("attention of each student layer over the teacher's:")
for path, row in zip(method.tapped["student"], last["notes"]["attention"], strict=True):
    print(f"  {path}", {to: round(share, 2) for to, share in zip(method.tapped["teacher"], row, strict=True)})

student = done.load("chosen").deployable()  # the attention and the projections stay behind
print(f"student: {evaluate(student, data.test)['accuracy']:.1%} of the test pictures")
