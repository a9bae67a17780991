from __future__ import annotations

import pytest
import torch

from limbeck.engine.optimizers import build_optimizer, build_schedule, check, optimizer_names, schedule_names
from limbeck.engine.settings import Training
from limbeck.errors import RequestError
from limbeck.method import Update

#: Schedules that need arguments which have no sensible default.
NEEDS = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1},
}


def settings(**given):
    return Training(**{"optimizer_options": {"momentum": 0.9}, **given})


@pytest.mark.parametrize("name", schedule_names())
def test_every_schedule_can_be_built_by_name(name):
    check(settings(schedule=name, schedule_options=NEEDS.get(name, {})))


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_can_be_built_by_name(name):
    check(Training(optimizer=name, optimizer_options={}, learning_rate=0.01))


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ({"optimizer": "SDG"}, "SGD"),
        ({"schedule": "CosineAnealingLR"}, "CosineAnnealingLR"),
        ({"optimizer_options": {"momentm": 0.9}}, "momentum"),
        ({"schedule": "StepLR", "schedule_options": {"step_size": 2, "gammas": 0.1}}, "gamma"),
        ({"groups": {"head": {"optimizer_options": {"wieght_decay": 0.1}}}}, "weight_decay"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(given, near):
    with pytest.raises(RequestError) as caught:
        check(settings(**given))
    assert caught.value.near[0] == near


def test_values_that_torch_refuses_are_said_in_one_message():
    with pytest.raises(RequestError, match="SGD refuses"):
        check(Training(optimizer_options={"momentum": -1.0}))
    with pytest.raises(RequestError, match="StepLR refuses"):
        check(settings(schedule="StepLR"))


def test_lengths_that_are_left_out_are_those_of_the_stage():
    parameter = torch.nn.Parameter(torch.zeros(1))
    update = Update("student", {"student": [parameter]})
    own = settings(learning_rate=1.0)
    optimizer = build_optimizer(update, own)
    schedule = build_schedule(optimizer, own, epochs=2, steps=5)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_what_the_method_asks_for_stands_over_the_recipe():
    update = Update("meta", {"meta": [torch.nn.Parameter(torch.zeros(1))]}, optimizer={"optimizer": "Adam"})
    assert isinstance(build_optimizer(update, Training(learning_rate=0.01)), torch.optim.Adam)
    wrong = Update("meta", {"meta": [torch.nn.Parameter(torch.zeros(1))]}, optimizer={"optimiser": "Adam"})
    with pytest.raises(RequestError) as caught:
        build_optimizer(wrong, Training())
    assert caught.value.near[0] == "optimizer"


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop"])
def test_the_rate_of_sgd_is_no_default_of_another(name):
    with pytest.raises(
        RequestError, match=f"{name} needs a learning_rate: the default, 0.05, is for SGD"
    ) as caught:
        check(Training(optimizer=name))
    usual = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
    assert caught.value.fix == f"learning_rate = {usual:g}, the default of torch"
    check(Training(optimizer=name, learning_rate=0.05))  # whoever writes it, means it
    check(Training())
