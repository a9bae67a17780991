from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import Losses, Method, Stage, Teacher, Update
from limbeck.errors import RequestError
from limbeck.methods import KD, METHODS, SemCKD, resolve
from tests.engine.tiny import CARD, Supervised, cnn, mlp, pictures, same, weights


def test_a_method_needs_losses_or_forward():
    class Empty(Method):
        card = CARD

    with pytest.raises(RequestError, match="neither `losses` nor `forward`") as caught:
        Empty(mlp())((torch.zeros(2, 6), torch.tensor([0, 1])))
    assert "def losses" in caught.value.fix


def test_the_default_stage_trains_the_student_and_what_the_method_holds():
    class Own(Supervised):
        def __init__(self, student):
            super().__init__(student)
            self.scale = nn.Parameter(torch.ones(1))
            self.adaptor = nn.Linear(2, 2)

    method = Own(mlp())
    (stage,) = method.stages()
    (update,) = stage.updates
    assert {id(p) for p in update.parameters()} == {id(p) for p in method.parameters()}
    assert [p.shape for p in update.group("method")] == [(2, 2), (2,), (1,)]


def test_entering_a_stage_drops_stale_gradients_and_freezes():
    method = Supervised(mlp())
    method((torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))).total.backward()
    method.enter(Stage("last", [Update("last", {"last": method.student[3]})]))
    assert all(p.grad is None for p in method.parameters())
    assert [p.requires_grad for p in method.student.parameters()] == [False, False, True, True]
    method.enter(Stage("all", [Update("all", {"all": method.student})]))
    assert all(p.requires_grad for p in method.parameters())
    assert all(module.training for module in method.student.modules())


def test_parameters_given_alone_keep_their_module_in_train_mode():
    method = Supervised(cnn())
    convolution, norm = method.student[0], method.student[1]
    method.enter(Stage("norm", [Update("norm", {"norm": list(norm.parameters())})]))
    assert norm.training
    assert not convolution.training


def test_the_deployable_is_a_copy():
    method = Supervised(cnn())
    deployed = method.deployable()
    before = weights(deployed)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(1)
    assert same(weights(deployed), before)


def test_layers_are_asked_for_by_the_methods_that_read_them():
    with pytest.raises(RequestError, match="sizes its adaptors by one batch") as caught:
        SemCKD(cnn(), cnn(seed=1))
    assert "example=" in caught.value.fix
    example = pictures().batch(range(8))
    with pytest.raises(RequestError, match="at least one layer of each"):
        SemCKD(cnn(), cnn(seed=1), taps={"student": ["0"], "teacher": []}, example=example)


def test_kinds_of_task_that_do_not_fit_are_refused():
    from limbeck.task import Regression

    with pytest.raises(RequestError, match="for outputs of the kind classes"):
        Supervised(mlp(), task=Regression())


def test_a_teacher_keeps_its_precision_and_goes_where_its_inputs_are():
    teacher = Teacher(mlp().to(torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.float16):
        said = teacher((torch.randn(4, 6), torch.tensor([0, 1, 2, 0])))
    assert said.output.dtype == torch.bfloat16
    assert not said.output.requires_grad
    assert teacher.reading(["0"])(torch.randn(4, 6)).layers["0"].shape == (4, 8)


def test_a_teacher_stops_after_the_last_layer_that_is_read():
    model = mlp()
    reached = []
    model[3].register_forward_hook(lambda *_: reached.append(1))
    record = Teacher(model, paths=["0"])(torch.randn(4, 6))
    assert record.output is not None
    reached.clear()
    record = Teacher(model, paths=["0"])
    record(torch.randn(4, 6))
    reached.clear()
    stopped = record(torch.randn(4, 6), output=False)
    assert stopped.output is None
    assert stopped.layers["0"].shape == (4, 8)
    assert not reached


def test_methods_by_name():
    assert resolve("kd") is KD
    assert resolve("tests.engine.tiny:Supervised").__name__ == "Supervised"
    assert list(METHODS) == sorted(METHODS)
    with pytest.raises(RequestError) as caught:
        resolve("semkd")
    assert caught.value.near[0] == "semckd"
    for wrong in ("tests.nowhere:Thing", "tests.engine.tiny:nothing", "tests.engine.tiny:mlp"):
        with pytest.raises(RequestError):
            resolve(wrong)


def test_losses_of_a_method_are_plain_values():
    method = KD(mlp(), mlp(seed=1))
    losses = method((torch.randn(4, 6), torch.tensor([0, 1, 2, 0])))
    assert isinstance(losses, Losses)
    assert set(losses.terms) == {"hard", "soft"}
