"""K1: a misspelt argument of a scheduler was ignored; 2e-5 was read as text."""

from __future__ import annotations

import pytest

from limbeck._run.checks import check_recipe
from limbeck.errors import RequestError
from limbeck.recipe import Recipe

BASE = """
name = "k1"
[data]
source = "fashion-small"
[teacher]
model = "resnet-small"
[student]
model = "cnn-tiny"
"""


def refused(text: str, *changes: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        check_recipe(Recipe.parse(text, "k1.toml", changes))
    return caught.value


def test_misspelt_argument_of_a_schedule() -> None:
    text = BASE + '[train]\nschedule = "StepLR"\nschedule_options = { step_size = 2, gammas = 0.5 }\n'
    error = refused(text)
    assert "gammas" in error.message
    assert error.fix == "gamma"
    assert error.where == "k1.toml:11:37"


def test_misspelt_argument_of_an_optimizer_of_the_teacher_and_of_a_group() -> None:
    error = refused(BASE, "teacher.train.optimizer_options.momentun=0.9")
    assert error.fix == "momentum"
    assert error.where == "--set teacher.train.optimizer_options.momentun=0.9"
    error = refused(BASE + "[train.groups.student.optimizer_options]\nweight_decai = 0.1\n")
    assert error.fix == "weight_decay"
    assert error.where == "k1.toml:10:1"


def test_misspelt_hyper_parameter() -> None:
    error = refused(BASE, "method.temperatur=2")
    assert error.message == "unknown key method.temperatur"
    assert error.fix == "temperature"


def test_a_number_in_exponent_form_is_a_number() -> None:
    recipe = Recipe.parse(BASE, "k1.toml", ["train.learning_rate=2e-5"])
    check_recipe(recipe)
    assert recipe.train.learning_rate == 2e-5


def test_text_where_a_number_belongs_is_refused() -> None:
    error = refused(BASE + '[train]\nlearning_rate = "2e-5"\n')
    assert error.message == 'train.learning_rate needs a number, not "2e-5"'
    assert error.where == "k1.toml:10:17"
    assert error.fix == "learning_rate = 2e-5, without quotes"
    error = refused(BASE, 'method.temperature="4"')
    assert error.message == 'method.temperature needs a number, not "4"'
    error = refused(BASE, 'train.optimizer_options.momentum="0.9"')
    assert "momentum" in error.message
