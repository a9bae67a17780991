"""The recipe: strict, with places; the same in TOML and in Python; `--set` typed by the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck._recipe import toml
from limbeck._recipe.shelf import recipe_names, recipe_text
from limbeck.errors import RequestError
from limbeck.recipe import Recipe, recipe_keys, recipe_schema

MINIMAL = """
name = "small"
[data]
source = "fashion-small"
[student]
model = "cnn-tiny"
"""

RICH = """#:schema limbeck.schema.json
# two teachers
name = "rich"          # its folder
seed = 3
[data]
source = "fashion-small"
[[teachers]]
model = "resnet-small"
train = { epochs = 3, optimizer = "AdamW" }
[[teachers]]
model = "cnn-tiny"
weights = "w.safetensors"
[student]
model = "cnn-tiny"
normalize = { mean = [0.5], std = [0.25] }
options = { "dotted.name" = 1 }
[method]
name = "kd"
temperature = 4.0
[train.groups.student]
learning_rate = 2e-5
"""


def refused(text: str, *changes: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        Recipe.parse(text, "mine.toml", changes)
    return caught.value


@pytest.mark.parametrize("text", [MINIMAL, RICH, *map(recipe_text, recipe_names())])
def test_round_trip_with_and_without_defaults(text: str) -> None:
    recipe = Recipe.parse(text, "r.toml")
    assert Recipe.parse(recipe.to_toml(), "r.toml") == recipe
    assert Recipe.parse(recipe.to_toml(), "r.toml").given() == recipe.given()
    assert Recipe.parse(recipe.to_toml(defaults=True), "r.toml") == recipe
    assert Recipe(**recipe.given()) == recipe
    assert recipe.source_text() == text


def test_default_then_recipe_then_set() -> None:
    assert Recipe.parse(MINIMAL, "r.toml").train.epochs == 20
    written = MINIMAL + "[train]\nepochs = 5\n"
    assert Recipe.parse(written, "r.toml").train.epochs == 5
    assert Recipe.parse(written, "r.toml", ["train.epochs=7"]).train.epochs == 7
    assert Recipe.parse(written, "r.toml", ["train.epochs=7", "train.epochs=8"]).train.epochs == 8
    assert Recipe.parse(written, "r.toml", {"train.epochs": 9}).train.epochs == 9


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("train.learning_rate=2e-5", "train.learning_rate", 2e-5),
        ("train.learning_rate=1", "train.learning_rate", 1.0),
        ("machine.precision=fp32", "machine.precision", "fp32"),
        ("machine.threads=2", "machine.threads", 2),
        ("machine.threads=auto", "machine.threads", "auto"),
        ("name=7", "name", "7"),
        ('name="7"', "name", "7"),
        ("data.root=/data/of mine", "data.root", "/data/of mine"),
        ("data.source=csv:a.csv", "data.source", "csv:a.csv"),
        ('data.augment=["crop", "flip"]', "data.augment", ["crop", "flip"]),
        ("data.mix=cutmix", "data.mix", "cutmix"),
        ("data.mix_alpha=0.4", "data.mix_alpha", 0.4),
        ("log.to=[]", "log.to", []),
        ("student.normalize=imagenet", "student.normalize", "imagenet"),
        ("student.options.width=8", "student.options.width", 8),
        ("train.optimizer_options.momentum=0.5", "train.optimizer_options.momentum", 0.5),
        ("method.temperature=2", "method.temperature", 2),
        ("method.order=own_batch", "method.order", "own_batch"),
    ],
)
def test_set_is_typed_by_the_schema(change: str, path: str, value: Any) -> None:
    recipe = Recipe.parse(MINIMAL, "r.toml", [change])
    found: Any = recipe.model_dump()
    for name in path.split("."):
        found = found[name]
    assert found == value
    assert type(found) is type(value) or change == "train.learning_rate=1"


def test_set_reaches_into_lists_of_tables() -> None:
    recipe = Recipe.parse(RICH, "r.toml", ["teachers.1.model=other", "teachers.0.train.epochs=9"])
    assert [teacher.model for teacher in recipe.all_teachers()] == ["resnet-small", "other"]
    assert recipe.training_of(recipe.teachers[0]).epochs == 9
    assert recipe.training_of(recipe.teachers[0]).optimizer == "AdamW"
    assert recipe.training_of(recipe.teachers[1]) == recipe.train.model_copy(update={"groups": {}})


def test_another_method_takes_none_of_the_keys_of_the_first() -> None:
    recipe = Recipe.parse(RICH, "r.toml", ["method.name=semckd", "method.soft_weight=2"])
    assert dict(recipe.method.hyperparameters) == {"soft_weight": 2}
    assert "method.temperature" in recipe.notes()[0]
    assert Recipe.parse(recipe.source_text(), "r.toml") == recipe
    assert "# two teachers" in recipe.source_text()
    same = Recipe.parse(RICH, "r.toml", ["method.name=kd"])
    assert dict(same.method.hyperparameters) == {"temperature": 4.0}
    assert not same.notes()


@pytest.mark.parametrize(
    "changes",
    [
        ["train.epochs=7"],
        ["seed=9", "name=other"],
        ["teachers.1.model=other", "teachers.0.train.epochs=9", "student.options.depth=2"],
        ["train.groups.student.learning_rate=1e-3", "machine.threads=1", "log.to=['tensorboard']"],
        ["student.normalize.std=[0.5]", "student.model=resnet-small"],
    ],
)
def test_source_text_holds_the_changes_and_keeps_the_comments(changes: list[str]) -> None:
    recipe = Recipe.parse(RICH, "r.toml", changes)
    text = recipe.source_text()
    assert Recipe.parse(text, "r.toml") == recipe
    assert text.startswith("#:schema limbeck.schema.json\n# two teachers\n")
    assert "# --set" in text


@pytest.mark.parametrize(
    ("old", "new", "place", "said", "fix"),
    [
        ("seed = 3", "sed = 3", "mine.toml:4:1", "unknown key sed", "seed"),
        ("epochs = 3", "epoch = 3", "mine.toml:9:11", "unknown key teachers.0.train.epoch", "epochs"),
        ("std = [0.25]", "sdt = [0.25]", "mine.toml:15:29", "unknown key student.normalize.sdt", "std"),
        (
            "learning_rate = 2e-5",
            "lr = 2e-5",
            "mine.toml:21:1",
            "unknown key train.groups.student.lr",
            "learning",
        ),
        (
            '[method]\nname = "kd"',
            '[methods]\nname = "kd"',
            "mine.toml:17:1",
            "unknown key methods",
            "method",
        ),
        ("seed = 3", 'seed = "3"', "mine.toml:4:8", 'seed needs a whole number, not "3"', "without quotes"),
        ("seed = 3", "seed = 3.0", "mine.toml:4:8", "seed needs a whole number, not 3.0", "seed = 0"),
        ("seed = 3", "seed = -1", "mine.toml:4:8", "seed is -1: at least 0", "seed = 0"),
        (
            "epochs = 3",
            "epochs = true",
            "mine.toml:9:20",
            "teachers.0.train.epochs needs a whole number",
            "20",
        ),
        (
            'model = "cnn-tiny"\nweights',
            'weights = "a"\n#',
            "mine.toml:10:1",
            "teachers.1.model is missing",
            "model",
        ),
        ("mean = [0.5]", "mean = 0.5", "mine.toml:15:22", "needs a list of a number", "mean = [0.5]"),
    ],
)
def test_message_has_place_and_fix(old: str, new: str, place: str, said: str, fix: str) -> None:
    assert old in RICH
    error = refused(RICH.replace(old, new))
    assert error.where == place
    assert said in error.message
    assert fix in (error.fix or "")


def test_messages_do_not_show_the_words_of_pydantic() -> None:
    for change in ("train.epochs=ten", "machine.threads=0", "machine.threads=x", "teacher=3", "log.to=3"):
        text = str(refused(MINIMAL, change))
        for word in ("pydantic", "http", "Input should", "type=", "valid integer", "extra"):
            assert word not in text


def test_the_constructor_refuses_in_the_same_words() -> None:
    with pytest.raises(RequestError, match=r"unknown key data\.sorce"):
        Recipe(name="x", data={"source": "fashion-small", "sorce": 1}, student={"model": "cnn-tiny"})


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("name = 'a", "mine.toml:1:9", "closing quote"),
        ("name = a", "mine.toml:1:8", "no TOML value"),
        ("name 'a'", "mine.toml:1:6", "a key without a value"),
        ("a = 1\na = 2\n", "mine.toml:2:6", "given twice"),
        ("[data]\n[data]\n", "mine.toml:2:6", "given twice"),
        ('root = "C:\\data"', "mine.toml:1:13", "backslash"),
        ("a = [1, 2", "mine.toml:1:9", "closing bracket"),
    ],
)
def test_text_that_is_no_toml(text: str, place: str, said: str) -> None:
    error = refused(text)
    assert (error.where or "").split(":")[:2] == place.split(":")[:2]
    assert said in error.message
    assert error.fix


def test_places_of_nested_keys() -> None:
    text = 'a.b = [1, { c = "x]" , "d.e" = 2 }]\n[t."u v"]\nw = """\n[no]\n"""\n[[list]]\n[[list]]\nz = 1\n'
    document = toml.parse(text, "f")
    assert document.where(("a", "b", 1, "d.e")) == "f:1:24"
    assert document.where(("a", "b", 0), value=True) == "f:1:8"
    assert document.where(("t", "u v", "w")) == "f:3:1"
    assert document.where(("list", 1, "z"), value=True) == "f:8:5"
    assert document.where(("list", 0, "missing")) == "f:6:1"
    assert ("no",) not in document.spots


@pytest.mark.parametrize(
    "value",
    [
        {"a": 'quote " and \\ and \n', "b": [1.5, True, -0.0], "c": {"k.x": {"y": []}}, "d": [{"e": 1}, {}]},
        {"inf": float("inf"), "text": "\x7f\u20ac", "empty": {}, "list": [[1], ["a"]]},
    ],
)
def test_written_toml_reads_back(value: dict[str, Any]) -> None:
    assert toml.parse(toml.dumps(value), "x").data == value


def test_a_recipe_is_a_path_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    assert Recipe.load(path) == Recipe.load(str(path)) == Recipe.parse(MINIMAL, "x")
    assert Recipe.load("quickstart").name == "quickstart"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="no recipe qickstart") as caught:
        Recipe.load("qickstart")
    assert caught.value.fix == "quickstart"
    with pytest.raises(RequestError) as caught:
        Recipe.load("mien.toml")
    assert caught.value.fix == "mine.toml"


def test_fingerprint_leaves_out_the_machine_and_the_name() -> None:
    plain = Recipe.parse(MINIMAL, "x")
    assert plain.fingerprint() == Recipe.parse(MINIMAL, "x", ["machine.threads=3", "name=y"]).fingerprint()
    assert plain.fingerprint() != Recipe.parse(MINIMAL, "x", ["seed=1"]).fingerprint()


def test_copies_start_with_the_schema_and_the_schema_knows_every_table() -> None:
    for name in recipe_names():
        assert recipe_text(name).startswith("#:schema ")
    schema = recipe_schema()
    json.dumps(schema)
    assert schema["$defs"]["ResizedCrop"]["required"] == ["name"]
    assert schema["$defs"]["ResizedCrop"]["additionalProperties"] is False
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["$defs"]["Training"]["additionalProperties"] is False
    assert "description" in schema["properties"]["seed"]


def test_every_key_for_set_exists() -> None:
    keys = recipe_keys()
    assert "train.learning_rate" in keys
    assert "teacher.train.epochs" in keys
    assert all(about for about in keys.values())


def test_data_keys_are_the_arguments_of_the_reader() -> None:
    import inspect

    from limbeck._recipe.sections import Data
    from limbeck.data.sources import load_source

    arguments = inspect.signature(load_source).parameters
    assert set(Data.model_fields) - {"labels", "views"} == set(arguments)
    for name, field in Data.model_fields.items():
        if name in arguments and name != "source":
            default = arguments[name].default
            own = field.get_default(call_default_factory=True)
            assert own == (list(default) if isinstance(default, tuple) else default)
