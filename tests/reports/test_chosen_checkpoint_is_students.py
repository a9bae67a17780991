"""open-mmlab/mmrazor#396: teacher and student are scored in turn, and the checkpoint followed the teacher."""

from __future__ import annotations

from limbeck.engine import Training, evaluate, fit
from limbeck.methods import KD
from tests.engine.tiny import Supervised, data, mlp


def test_chosen_checkpoint_is_students(monkeypatch):
    """The teacher is better than the student in every epoch, and is not scored by the loop at all."""
    teacher = mlp(seed=5, width=32)
    train, held = data(96), data(48, seed=1)
    fit(Supervised(teacher), train, settings=Training(epochs=20, batch_size=16))
    calls = []
    original = teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda inputs: (calls.append(len(inputs)), original(inputs))[1])
    settings = Training(epochs=5, batch_size=16, learning_rate=0.01)
    result = fit(KD(mlp(seed=1), teacher), train, held, settings)
    scores = [entry["scores"]["student"]["accuracy"] for entry in result.history]
    assert all(set(entry["scores"]) == {"student"} for entry in result.history)
    assert result.chosen_epoch == 1 + scores.index(max(scores))
    assert evaluate(result.load("chosen").deployable(), held)["accuracy"] == max(scores)
    assert sum(calls) == 5 * 96  # training batches alone
