"""pytorch/pytorch#86590: frozen by requires_grad alone, and the batch statistics moved on."""

from __future__ import annotations

import torch
from torch import nn

from limbeck import Losses, Stage, Teacher, Update
from limbeck.method import copy_of
from tests.engine.tiny import Supervised, cnn, pictures, same, weights


class HeadOnly(Supervised):
    def stages(self):
        return [Stage("head", [Update("student", {"head": self.student[-1]})])]


def test_what_a_stage_does_not_train_keeps_its_buffers():
    method = HeadOnly(cnn())
    (stage,) = method.stages()
    method.enter(stage)
    before = weights(method.student)
    for _ in range(3):
        method.train()  # whatever a loop calls
        method(pictures().batch(range(8))).total.backward()
    assert same(weights(method.student), before)
    assert not method.student[1].training
    assert not method.student[7].training  # the dropout before the head rests too
    assert method.student[8].training


def test_two_calls_of_a_teacher_with_dropout_are_equal():
    teacher = Teacher(cnn())
    batch = pictures().batch(range(8))
    before = weights(teacher.model)
    one = teacher(batch).output
    teacher.model.train()
    two = teacher(batch).output
    assert torch.equal(one, two)
    assert same(weights(teacher.model), before)


def test_features_through_a_frozen_teacher_head_carry_gradient_back():
    class Through(Supervised):
        def __init__(self, student, head):
            super().__init__(student)
            self.head = copy_of(head)

        def losses(self, student, teacher, batch):
            loss = self.head(student.output).square().mean()
            return Losses({"head": loss}, {"head": 1.0})

        def stages(self):
            return [Stage("train", [Update("student", {"student": self.student})])]

    head = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))
    method = Through(cnn(), head)
    (stage,) = method.stages()
    method.enter(stage)
    before = weights(method.head)
    method.train()
    method(pictures().batch(range(8))).total.backward()
    assert same(weights(method.head), before)
    assert all(parameter.grad is None for parameter in method.head.parameters())
    assert all(parameter.grad is not None for parameter in method.student.parameters())
