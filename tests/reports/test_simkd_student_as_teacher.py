"""DefangChen/SimKD#14: a student of SimKD was loaded as the next teacher without projector and classifier."""

from __future__ import annotations

from pathlib import Path

import torch

from limbeck import fit, load
from limbeck.engine import Training, evaluate
from limbeck.methods import KD, SimKD
from limbeck.models import prepare, save_student
from limbeck.models.building import Built
from limbeck.models.composed import describe, outward
from tests.methods.tapped import CLASSES, dataset


def built(spec: str, seed: int, data: object) -> Built:
    torch.manual_seed(seed)
    inputs = data.batch(torch.arange(4))["inputs"]
    options = {"channels": 2, "normalize": {"mean": [0.4, 0.4], "std": [0.3, 0.3]}}
    return prepare(spec, num_classes=CLASSES, inputs=inputs, **options)


def test_simkd_student_as_teacher(tmp_path: Path) -> None:
    """The folder holds all that is deployed: it scores as reported, and teaches by `kd` and by `simkd`."""
    data = dataset(32)
    student, teacher = built("cnn-tiny", 1, data), built("resnet8", 2, data)
    batch = data.batch(torch.arange(16))
    settings = Training(epochs=2, batch_size=16, learning_rate=0.01)
    first = fit(SimKD(student.network, teacher.network, example=batch, factor=8), data, data, settings)
    reported = first.history[-1]["scores"]["student"]["accuracy"]
    deployed = first.load("last").deployable()
    architecture = describe(deployed, student.architecture, [])
    inputs = data.batch(torch.arange(32))["inputs"]
    with torch.no_grad():
        said = deployed.eval()(inputs)
    folder = save_student(tmp_path / "student", outward(deployed), architecture=architecture)
    again = prepare(str(folder), num_classes=CLASSES, inputs=inputs)
    assert evaluate(again.network, data)["accuracy"] == reported
    assert evaluate(load(folder).network, data)["accuracy"] == reported
    with torch.no_grad():
        assert torch.equal(again.network.eval()(inputs), said)
    for method in (KD, SimKD):
        given = {"example": batch} if method is SimKD else {}
        pupil = built("cnn-tiny", 3, data).network
        fit(method(pupil, again.network, **given), data, settings=settings)
    with torch.no_grad():
        assert torch.equal(again.network(inputs), said)
