from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from limbeck import Losses, Stage, Update
from limbeck.data.loader import Loader
from limbeck.engine import Machine, Training, evaluate, fit
from limbeck.engine.listener import Listener
from limbeck.errors import RequestError, RunError
from limbeck.method import Method
from limbeck.teacher import Teacher
from tests.engine.tiny import Deciding, Staged, Supervised, cnn, data, mlp, pictures, same, weights

PLAIN = {"schedule": "none", "optimizer_options": {}, "learning_rate": 0.1, "batch_size": 8}


class Steps(Listener):
    wants_index = True

    def __init__(self):
        self.steps, self.epochs, self.stages = [], [], []

    def on_step(self, event):
        self.steps.append(event)

    def on_epoch(self, event):
        self.epochs.append(event)

    def on_stage(self, event):
        self.stages.append(event)


def test_the_engine_equals_a_loop_of_ones_own_bit_for_bit():
    student = mlp()
    fit(Supervised(student), data(), settings=Training(epochs=3, **PLAIN), seed=5)
    own = Supervised(mlp())
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    for epoch in (1, 2, 3):
        for (batch,) in Loader(data(), 8, seed=5, stage=0, epoch=epoch):
            own(batch).total.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert same(weights(student), weights(own.student))


def test_it_learns_and_reports():
    listener = Steps()
    train, held = data(96), data(64, seed=1)
    result = fit(Supervised(mlp()), train, held, Training(epochs=12, batch_size=16), listener=listener)
    assert result.scores["student"]["accuracy"] > 0.8
    assert [e.epoch for e in listener.epochs] == list(range(1, 13))
    assert listener.epochs[-1].terms["hard"] < listener.epochs[0].terms["hard"]
    assert result.history[-1]["scores"]["student"] == evaluate(result.method.deployable(), held)
    assert sorted(i for e in listener.steps[:6] for i in e.index) == list(range(96))


@pytest.mark.parametrize("limit", [1, 3, 4])
def test_micro_batches_equal_one_batch(limit):
    def trained(machine):
        student = mlp().double()
        train = data(30)
        train._inputs["inputs"] = train._inputs["inputs"].double()
        train._targets[::3] = -1  # unequal numbers of labels in the micro-batches
        fit(Supervised(student), train, settings=Training(epochs=2, **PLAIN), machine=machine)
        return weights(student)

    one, cut = trained(Machine()), trained(Machine(micro_batch=limit))
    for name in one:
        torch.testing.assert_close(cut[name], one[name], rtol=1e-10, atol=1e-12)


def test_stages_train_what_they_say_and_nothing_else():
    method = Staged(mlp())
    seen = {}

    class Watch(Listener):
        def on_epoch(self, event):
            seen.setdefault(event.stage_name, []).append(weights(method.student))

    start = weights(method.student)
    listener = Watch()
    fit(method, data(), data(16, seed=3), Training(epochs=8, **PLAIN), listener=listener)
    assert {name: len(states) for name, states in seen.items()} == {"first": 2, "both": 2, "all": 4}
    assert torch.equal(seen["first"][-1]["3.weight"], start["3.weight"])
    assert not torch.equal(seen["first"][-1]["0.weight"], start["0.weight"])
    assert not torch.equal(seen["both"][-1]["3.weight"], start["3.weight"])


def test_an_update_that_is_due_every_so_many_steps_also_takes_the_last():
    calls = []

    class Counting(Supervised):
        def stages(self):
            first, _, _, last = self.student
            rare = Update("rare", {"last": last}, every=3)
            return [Stage("only", [Update("often", {"first": first}), rare])]

        def forward(self, batch, update="student"):
            calls.append(update)
            return super().forward(batch, update)

    fit(Counting(mlp()), data(40), settings=Training(epochs=1, **PLAIN))  # 5 steps: 0, 3 and 4
    assert calls == ["often", "rare", "often", "often", "often", "rare", "often", "rare"]


def test_own_batches_give_every_update_its_next_batch():
    seen = []

    class Own(Supervised):
        def stages(self):
            first, _, _, last = self.student
            updates = [Update("a", {"a": first}), Update("b", {"b": last})]
            return [Stage("only", updates, own_batches=True)]

        def forward(self, batch, update="student"):
            seen.append((update, tuple(batch["index"].tolist())))
            return super().forward(batch, update)

    fit(Own(mlp()), data(32), settings=Training(epochs=1, **PLAIN))
    assert [update for update, _ in seen] == ["a", "b"] * 2
    assert sorted(i for _, index in seen for i in index) == list(range(32))


def test_whole_batches_leave_the_rest_out():
    sizes = []

    class Whole(Supervised):
        def stages(self):
            return [Stage("only", [Update("student", {"student": self.student})], whole_batches=True)]

        def forward(self, batch, update="student"):
            sizes.append(len(batch["targets"]))
            return super().forward(batch, update)

    fit(Whole(mlp()), data(30), settings=Training(epochs=1, **PLAIN))
    assert sizes == [8, 8, 8]
    with pytest.raises(RequestError, match="no step"):
        fit(Whole(mlp()), data(7), settings=Training(epochs=1, **PLAIN))


def test_labelled_stages_see_labels_only_and_take_as_many_steps():
    class Labelled(Supervised):
        def stages(self):
            return [Stage("only", [Update("student", {"student": self.student})], data="labelled")]

    train = data(32)
    train._targets[8:] = -1
    listener = Steps()
    fit(Labelled(mlp()), train, settings=Training(epochs=1, **PLAIN), listener=listener)
    assert len(listener.steps) == 4
    assert sorted(i for e in listener.steps for i in e.index) == sorted(list(range(8)) * 4)


def test_begin_makes_columns_once_and_they_reach_the_batch():
    begun = []

    class Columns(Supervised):
        def stages(self):
            def begin(train):
                begun.append(1)
                return train.with_columns({"extra": train.index().float() * 2})

            return [Stage("only", [Update("student", {"student": self.student})], begin=begin, renew=2)]

        def losses(self, student, teacher, batch):
            assert torch.equal(batch["extra"], batch["index"].float() * 2)
            return super().losses(student, teacher, batch)

    fit(Columns(mlp()), data(16), settings=Training(epochs=5, **PLAIN))
    assert len(begun) == 3  # on entry, and before epochs 3 and 5


def test_a_generator_of_stages_reads_scores():
    listener = Steps()
    settings = Training(epochs=5, **{**PLAIN, "learning_rate": 1e-9})
    fit(Deciding(mlp()), data(16), data(16), settings, listener=listener)
    assert [e.name for e in listener.stages] == ["round0", "round1"]


def test_the_chosen_epoch_is_the_students_best_and_early_stop_follows_it():
    scores = iter([0.2, 0.6, 0.5, 0.6, 0.1, 0.3])

    class Scripted(Supervised):
        def networks(self):
            return {"student": self.deployable(), "worse": nn.Sequential(nn.Linear(6, 3))}

    class Task(type(Supervised(mlp()).task)):
        def score(self, statistics):
            return {"accuracy": next(scores) if self.turn() else 1.0, "loss": 0.0}

        def turn(self):
            self.calls = getattr(self, "calls", 0) + 1
            return self.calls % 2 == 1

    method = Scripted(mlp(), task=Task())
    settings = Training(epochs=6, early_stop=3, **PLAIN)
    result = fit(method, data(16), data(8, seed=1), settings)
    assert result.chosen_epoch == 2
    assert len(result.history) == 5  # epochs 3, 4 and 5 were no better
    assert result.chosen_scores["student"]["accuracy"] == 0.6
    last = weights(method)
    chosen = weights(result.load("chosen"))
    assert not same(last, chosen)
    assert same(weights(result.load("last")), last)


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    train = data(32)
    train._inputs["inputs"][13] = float("inf")
    method = Supervised(mlp())
    listener = Steps()
    with pytest.raises(RunError, match=r"hard = (nan|inf).*epoch 1, step \d.*sample") as caught:
        fit(method, train, settings=Training(epochs=3, **PLAIN), folder=tmp_path, listener=listener)
    assert "not finite in itself: sample 13)" in str(caught.value)
    assert all(bool(p.isfinite().all()) for p in method.parameters())
    assert not list(tmp_path.iterdir())


def test_frozen_parts_and_the_teacher_do_not_move():
    teacher = cnn(seed=3)
    before = weights(teacher)

    class Distilled(Supervised):
        card = __import__("dataclasses").replace(Supervised.card, teacher="outputs")

        def losses(self, student, teacher, batch):
            gap = (student.output - teacher.output).square().mean()
            return Losses({"gap": gap}, {"gap": 1.0})

        def stages(self):
            return [Stage("only", [Update("student", {"last": self.student[-1]})])]

    student = cnn()
    start = weights(student)
    fit(Distilled(student, teacher.train()), pictures(), settings=Training(epochs=2, **PLAIN))
    assert same(weights(teacher), before)
    moved = {name for name, value in weights(student).items() if not torch.equal(value, start[name])}
    assert moved == {"8.weight", "8.bias"}
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_trains_and_leaves_float32_weights(precision):
    method = Supervised(cnn())
    result = fit(
        method,
        pictures(),
        pictures(seed=1),
        Training(epochs=3, batch_size=8),
        machine=Machine(precision=precision),
    )
    assert all(p.dtype == torch.float32 for p in method.parameters())
    assert math.isfinite(result.history[-1]["terms"]["hard"])
    assert "forward" not in vars(method)  # the wrapper of the precision is gone


def test_notes_are_means_over_the_epoch():
    class Noting(Supervised):
        def losses(self, student, teacher, batch):
            losses = super().losses(student, teacher, batch)
            step = round(self.progress * 4)  # 0, 1, 2, 3 in the only epoch
            return Losses(losses.terms, losses.weights, {"step": torch.tensor([step, 2.0 * step])})

    result = fit(Noting(mlp()), data(32), settings=Training(epochs=1, **PLAIN))
    assert result.history[0]["notes"] == {"step": [1.5, 3.0]}


def test_groups_have_their_own_rates():
    class Grouped(Supervised):
        def stages(self):
            first, _, _, last = self.student
            return [Stage("only", [Update("student", {"body": first, "head": last})])]

    listener = Steps()
    settings = Training(epochs=1, **PLAIN, groups={"head": {"learning_rate": 0.5}})
    fit(Grouped(mlp()), data(), settings=settings, listener=listener)
    assert dict(listener.steps[0].learning_rates) == {"student.body": 0.1, "student.head": 0.5}
    with pytest.raises(RequestError, match="no group 'haed'"):
        fit(Grouped(mlp()), data(), settings=Training(groups={"haed": {}}))


def test_the_callers_random_state_is_left_alone():
    before = torch.get_rng_state()
    fit(Supervised(mlp(dropout=0.5)), data(), settings=Training(epochs=1, **PLAIN))
    torch.manual_seed(0)
    mlp(dropout=0.5)
    assert torch.equal(torch.get_rng_state(), torch.get_rng_state())
    assert before.shape == torch.get_rng_state().shape


def test_values_that_the_loop_sets_name_the_line_to_write():
    method = Supervised(mlp())
    with pytest.raises(RequestError, match=r"method\.epoch") as caught:
        _ = method.epoch
    assert "method.epoch = epoch" in str(caught.value)


def test_the_teacher_is_in_no_state_and_stays_in_eval():
    class Distilled(Method):
        card = __import__("dataclasses").replace(Supervised.card, teacher="outputs")

        def losses(self, student, teacher, batch):
            gap = (student.output - teacher.output).square().mean()
            return Losses({"gap": gap}, {"gap": 1.0})

    teacher = Teacher(cnn(seed=1))
    method = Distilled(cnn(), teacher)
    assert not any("teacher" in name for name in method.state_dict())
    assert not {id(p) for p in method.parameters()} & {id(p) for p in teacher.model.parameters()}
    teacher.model.train()
    batch = pictures().batch(torch.arange(6))
    buffers = weights(teacher.model)
    one, two = teacher(batch), teacher(batch)
    assert torch.equal(one.output, two.output)
    assert same(weights(teacher.model), buffers)
    assert not teacher.model.training
