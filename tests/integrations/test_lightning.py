from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from limbeck.engine import evaluate
from limbeck.errors import RequestError, RunError
from limbeck.integrations.lightning import LightningMethod
from limbeck.methods import KD, PeerMutualKD, Plain
from tests.integrations.loops import LIGHTNING_WARNINGS, lightning_trainer, perceptron, rows

pytestmark = LIGHTNING_WARNINGS


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def module(**settings):
    return LightningMethod(KD(perceptron(1), perceptron(2, 16), **settings), sgd)


def loader(samples=24, seed=0, size=8):
    return DataLoader(rows(samples, seed), batch_size=size)


def whole(samples=24, seed=0):
    data = rows(samples, seed)
    return tuple(torch.stack([row[key] for row in data]) for key in ("inputs", "targets"))


def test_validation_test_and_prediction_act_on_the_student(tmp_path):
    made, trainer = module(), lightning_trainer(tmp_path, max_epochs=2)
    trainer.fit(made, loader(), loader(11, 1))
    assert {"hard", "soft", "total"} <= set(trainer.callback_metrics)
    scores = evaluate(made.method.deployable(), whole(11, 1))
    for name, value in scores.items():
        assert trainer.callback_metrics[f"val_{name}"].item() == pytest.approx(value, abs=1e-6)
    (tested,) = trainer.test(made, loader(11, 1), verbose=False)
    assert tested == {f"test_{name}": pytest.approx(value, abs=1e-6) for name, value in scores.items()}
    predicted = torch.cat(trainer.predict(made, loader(11, 1)))
    torch.testing.assert_close(predicted, made.method.deployable().eval()(whole(11, 1)[0]).detach())


def test_the_loop_sets_what_methods_read(tmp_path):
    made, seen = module(warmup=2), []

    def note(method, inputs, output):
        seen.append((method.epoch, method.epochs, round(method.progress, 3), output.weights["soft"]))

    made.method.register_forward_hook(note)
    lightning_trainer(tmp_path, max_epochs=2).fit(made, loader())
    assert [each[0] for each in seen] == [1, 1, 1, 2, 2, 2]
    assert [each[2] for each in seen] == [0.0, 0.167, 0.333, 0.5, 0.667, 0.833]
    assert [each[3] for each in seen] == [0.45] * 3 + [0.9] * 3


def test_groups_schedules_and_checkpoints(tmp_path):
    def make():
        method = KD(perceptron(1), perceptron(2, 16))
        halve = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)  # noqa: E731
        return LightningMethod(method, sgd, schedule=halve, schedule_unit="step")

    def fitted(epochs, **options):
        made = make()
        trainer = lightning_trainer(tmp_path, max_epochs=epochs)
        trainer.fit(made, loader(), **options)
        return made, trainer

    expected, trainer = fitted(4)
    (optimizer,) = trainer.optimizers
    assert [group["name"] for group in optimizer.param_groups] == ["student"]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**6)
    _, cut = fitted(2)
    cut.save_checkpoint(tmp_path / "cut.ckpt")
    resumed, _ = fitted(4, ckpt_path=tmp_path / "cut.ckpt")
    for one, other in zip(expected.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    loaded = LightningMethod.load_from_checkpoint(
        tmp_path / "end.ckpt", method=make().method, optimizer=sgd, weights_only=True
    )
    inputs = whole()[0]
    torch.testing.assert_close(
        loaded.method.deployable().eval()(inputs), expected.method.deployable().eval()(inputs)
    )


def test_unequal_batches_that_are_averaged_as_equals_are_warned_of(tmp_path):
    made, trainer = module(), lightning_trainer(tmp_path, accumulate_grad_batches=2)
    with pytest.warns(UserWarning, match="averaged as equals by accumulate_grad_batches"):
        trainer.fit(made, loader(20))
    lightning_trainer(tmp_path, accumulate_grad_batches=3).fit(module(), loader(24))
    lightning_trainer(tmp_path).fit(module(), loader(20))


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    made = module()
    before = [p.detach().clone() for p in made.method.student.parameters()]
    with torch.no_grad():
        made.method.student[3].bias.fill_(float("inf"))
    with pytest.raises(RunError, match="the loss is not finite: hard = "):
        lightning_trainer(tmp_path).fit(made, loader())
    assert torch.equal(before[0], made.method.student[0].weight)


def test_methods_that_ask_for_more_are_sent_to_the_engine(tmp_path):
    students = [perceptron(1), perceptron(2)]
    with pytest.raises(RequestError, match=r"the loop of Lightning") as caught:
        LightningMethod(PeerMutualKD(students, perceptron(3)), sgd)
    assert "limbeck.fit(" in str(caught.value)
    made = LightningMethod(PeerMutualKD(students, perceptron(3), order="simultaneous"), sgd)
    trainer = lightning_trainer(tmp_path)
    trainer.fit(made, loader(), loader(11, 1))
    assert [group["name"] for group in trainer.optimizers[0].param_groups] == [
        "teacher",
        "student0",
        "student1",
    ]
    assert all(network.training for network in made.method.students)


def test_the_plain_student_trains_on_data_that_are_all_labelled(tmp_path):
    made = LightningMethod(Plain(perceptron(1)), sgd)
    before = [p.detach().clone() for p in made.method.student.parameters()]
    lightning_trainer(tmp_path).fit(made, loader())
    assert not torch.equal(before[0], made.method.student[0].weight)
    some = [row if row["index"] % 3 else {**row, "targets": torch.tensor(-1)} for row in rows()]
    with pytest.raises(RequestError, match="Plain trains on labelled samples alone, and 3 of a batch of 8"):
        lightning_trainer(tmp_path).fit(made, DataLoader(some, batch_size=8))


def test_inputs_may_be_tuples(tmp_path):
    data = torch.utils.data.TensorDataset(*whole())
    one, other = module(), module()
    lightning_trainer(tmp_path).fit(one, DataLoader(data, batch_size=8))
    lightning_trainer(tmp_path).fit(other, loader())
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert isinstance(one.method.student, nn.Sequential)
