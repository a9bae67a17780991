"""E4, huggingface/optimum#151, microsoft/onnxruntime#14642: an int8 file that answers one class."""

from __future__ import annotations

import pytest
import torch

from limbeck import Recipe
from limbeck._run.export import Order, _answers
from limbeck._run.folder import RunFolder
from limbeck._run.session import open_session
from limbeck.errors import RunError

RECIPE = """name = "one"
[data]
source = "fashion-small"
limit = 200
[teacher]
model = "cnn-tiny"
[student]
model = "cnn-tiny"
[method]
name = "kd"
[train]
epochs = 1
"""


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Order:
    recipe = Recipe.parse(RECIPE, "one.toml")
    session = open_session(recipe)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    return Order(session, folder, session.student().eval(), session.splits.train, recipe.export)


def test_one_class_for_nearly_all_is_refused_by_name(order: Order) -> None:
    before = torch.arange(100) % 10
    after = torch.full((100,), 3)
    after[:4] = 1
    with pytest.raises(RunError, match=r"int8 file answers .* for 96% .* for 10%, so it was not kept"):
        _answers(order, before, after)


def test_a_network_that_answers_one_class_itself_has_not_collapsed(order: Order) -> None:
    same = torch.full((100,), 3)
    found = _answers(order, same, same)
    assert found["agreement"] == 1
    assert found["predicted"][3] == found["predicted_before"][3] == 100
