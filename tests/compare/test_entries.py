from __future__ import annotations

from typing import Any

import pytest

from limbeck._compare.cells import cells_of, identity
from limbeck._compare.entries import differences, entries_of
from limbeck.errors import RequestError
from limbeck.recipe import Recipe
from tests.compare.tiny import TABLES, recipe


def entries(*recipes: Recipe) -> Any:
    return entries_of([(each, f"{each.name}.toml") for each in recipes])


def test_the_plain_student_is_added_once_with_the_first_recipes_budget() -> None:
    groups = {"student": {"learning_rate": 0.1}, "adaptors": {"learning_rate": 0.2}}
    first = recipe(train={**TABLES["train"], "groups": groups})
    alone, kd = entries(first)
    assert (alone.name, alone.method, kd.name) == ("alone", "plain", "kd")
    assert alone.recipe.all_teachers() == []
    assert alone.recipe.train.epochs == 2
    assert list(alone.recipe.train.groups) == ["student"]
    own = recipe("mine", "plain")
    assert [entry.name for entry in entries(first, own)] == ["mine", "kd"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {**TABLES["data"], "limit": 8}}, "data.limit is nothing and 8"),
        ({"data": {**TABLES["data"], "augment": ["flip"]}}, 'data.augment is nothing and ["flip"]'),
        ({"student": {"model": "resnet-small"}}, 'student.model is "cnn-tiny" and "resnet-small"'),
        ({"train": {"epochs": 3, "batch_size": 16}}, "train.epochs is 2 and 3"),
        ({"train": {"epochs": 2, "batch_size": 8}}, "train.batch_size is 16 and 8"),
    ],
)
def test_what_makes_scores_incomparable_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        entries(recipe(), recipe("other", **changes))
    assert refused.value.message == f"kd and other cannot be compared: {said}"
    assert "--set" in str(refused.value.fix)


def test_other_places_of_the_data_are_the_same_data() -> None:
    assert entries(recipe(), recipe("other", data={**TABLES["data"], "root": "elsewhere"}))


def test_names_are_folders_so_each_is_there_once() -> None:
    with pytest.raises(RequestError, match="have one name, kd"):
        entries(recipe(), recipe())
    with pytest.raises(RequestError, match="can be called teacher"):
        entries(recipe("teacher"))


def test_what_else_differs_is_said() -> None:
    other = recipe(
        "other",
        train={**TABLES["train"], "learning_rate": 0.1},
        teacher={"model": "resnet-small", "weights": "train"},
    )
    assert differences(entries(recipe(), other)) == [
        "kd and other differ in train.learning_rate: 0.05 and 0.1",
        'kd and other differ in teacher.model: "cnn-tiny" and "resnet-small"',
        "kd and other differ in teacher.train.learning_rate: 0.05 and 0.1",
    ]
    assert differences(entries(recipe(), recipe("two", "sskd"))) == []


def test_a_teacher_is_trained_once_for_all_that_share_it(tmp_path: Any) -> None:
    larger = recipe("larger", teacher={"model": "resnet-small", "weights": "train"})
    found = entries(recipe(), recipe("other", "sskd"), larger)
    trained = {"kd": [0], "other": [0], "larger": [0]}
    cells = cells_of(found, [3, 7], tmp_path, trained, threads=1)
    teachers = [cell for cell in cells if not cell.entry]
    assert [cell.name.split("-")[0] for cell in teachers] == ["teacher", "teacher"]
    assert [cell.name for cell in cells[2:6]] == ["alone-seed3", "kd-seed3", "other-seed3", "larger-seed3"]
    by_name = {cell.name: cell for cell in cells}
    assert by_name["kd-seed3"].needs == by_name["other-seed7"].needs == ("teacher",)
    assert by_name["larger-seed3"].needs == (teachers[1].name,)
    assert by_name["alone-seed3"].needs == ()
    kd = by_name["kd-seed7"].recipe
    assert (kd.seed, kd.alone, kd.export.to, kd.machine.threads) == (7, False, [], 1)
    assert str(kd.all_teachers()[0].weights).endswith("cells/teacher/student/model.safetensors")
    assert teachers[0].recipe.seed not in (0, 3, 7)


def test_teachers_learn_from_all_labels_and_written_threads_are_kept(tmp_path: Any) -> None:
    few = recipe(data={**TABLES["data"], "labels": 8}, machine={"threads": 2})
    teacher, *_ = cells_of(entries(few), [0], tmp_path, {"kd": [0]}, threads=1)
    assert teacher.recipe.data.labels is None
    assert teacher.recipe.machine.threads == 2


def test_the_identity_of_a_line_is_what_it_computes() -> None:
    (_, one), (_, two) = entries(recipe()), entries(recipe(seed=5, machine={"threads": 2}))
    (_, three) = entries(Recipe(name="kd", method={"name": "kd", "temperature": 2.0}, **TABLES))
    assert identity(one) == identity(two) != identity(three)
