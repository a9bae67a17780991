from __future__ import annotations

import json

import pytest
import torch

from limbeck._seal import seal
from limbeck.errors import RequestError, RunError
from limbeck.models import Architecture, CardFacts, Preprocessed, Preprocessing, load, prepare, save_student

PIXELS = torch.rand(3, 1, 28, 28)
READING = {"kind": "image", "channels": 1, "size": [28, 28]}
CLASSES = ["shirt", "boot", "bag"]


def built(**more):
    return prepare("cnn-tiny", num_classes=3, inputs=PIXELS, statistics=((0.3,), (0.35,)), **more)


def save(folder, made=None, **more):
    made = made or built()
    given = {"architecture": made.architecture, "classes": CLASSES, "reading": READING, **more}
    return save_student(folder, made.network, **given)


def logits(network, inputs=PIXELS):
    with torch.inference_mode():
        return network.eval()(inputs)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    made = built(channels=3, size=16)
    folder = save(tmp_path / "student", made)
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded = load(folder)
    assert torch.equal(loaded.network(PIXELS), logits(made.network))
    assert loaded.preprocessing == made.network.preprocessing
    assert (loaded.classes, loaded.kind, loaded.architecture) == (CLASSES, "classes", made.architecture)
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())
    assert [file.name for file in tmp_path.iterdir()] == ["student"]


def test_a_run_is_loaded_by_its_own_folder(tmp_path):
    save(tmp_path / "run" / "student")
    assert load(tmp_path / "run").folder == tmp_path / "run" / "student"


def test_a_new_student_replaces_an_old_one(tmp_path):
    save(tmp_path / "student")
    made = built()
    save(tmp_path / "student", made)
    assert torch.equal(load(tmp_path / "student").network(PIXELS), logits(made.network))
    assert [file.name for file in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("wrap", ["channels_last", "half", "compiled", "parallel"])
def test_what_training_did_to_the_network_does_not_matter(tmp_path, wrap):
    made = built()
    network = made.network
    if wrap == "channels_last":
        network = network.to(memory_format=torch.channels_last)
    elif wrap == "half":
        network = network.bfloat16()
    elif wrap == "compiled":
        network = torch.compile(network, backend="eager")
    else:
        network = torch.nn.DataParallel(network)
    save_student(tmp_path / "student", network, architecture=made.architecture, reading=READING)
    loaded = load(tmp_path / "student")
    assert torch.equal(loaded.network.body.fc.weight, made.network.body.fc.weight.float())
    assert loaded.network.body.conv1.weight.is_contiguous()
    assert loaded.classes == ["0", "1", "2"]


def test_a_student_trains_on_and_teaches(tmp_path):
    made = built()
    save(tmp_path / "student", made)
    again = prepare(str(tmp_path / "student"), num_classes=3, inputs=PIXELS)
    assert torch.equal(logits(again.network), logits(made.network))
    assert again.classes == CLASSES
    assert again.architecture == made.architecture
    assert all(p.requires_grad for p in again.network.parameters())
    large = prepare(str(tmp_path / "student"), num_classes=3, inputs=torch.rand(2, 3, 40, 40))
    assert large.network.preprocessing == Preprocessing("image", 1, (28, 28), (0.3,), (0.35,))
    weights = prepare("cnn-tiny", num_classes=3, inputs=PIXELS, weights=tmp_path / "student")
    assert weights.network.preprocessing == made.network.preprocessing
    with pytest.raises(RequestError, match="has 3 outputs, the data need 5"):
        prepare(str(tmp_path / "student"), num_classes=5, inputs=PIXELS)
    with pytest.raises(RequestError, match=r"size = \(20, 20\)"):
        prepare(str(tmp_path / "student"), num_classes=3, inputs=PIXELS, size=20)


def test_absent_folders_are_refused(tmp_path):
    with pytest.raises(RequestError, match="there is no folder"):
        load(tmp_path / "absent")
    with pytest.raises(RequestError, match="holds no student"):
        load(tmp_path)


def test_what_cannot_be_loaded_is_not_left_behind(tmp_path):
    made = built()
    other = Architecture("cnn-tiny", 5, 1, (28, 28))
    with pytest.raises(RequestError, match="do not fit"):
        save(tmp_path / "student", made, architecture=other)
    assert list(tmp_path.iterdir()) == []
    save(tmp_path / "student", made)
    with pytest.raises(RequestError, match="do not fit"):
        save(tmp_path / "student", made, architecture=other)
    assert load(tmp_path / "student").classes == CLASSES
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        save(tmp_path / "file" / "student", made)


def test_rows_come_back_with_their_columns(tmp_path):
    columns = [
        {"name": "age", "mean": 40.0, "std": 10.0, "categories": []},
        {"name": "work", "mean": 0.0, "std": 1.0, "categories": ["farm", "shop"]},
    ]
    made = prepare("mlp", num_classes=2, inputs=torch.rand(1, 3), options={"widths": [4]})
    reading = {"kind": "row", "columns": columns}
    save_student(
        tmp_path / "s", made.network, architecture=made.architecture, classes=["no", "yes"], reading=reading
    )
    loaded = load(tmp_path / "s")
    answer = loaded.predict({"age": 50, "work": "shop"})
    expected = logits(made.network, torch.tensor([[1.0, 0.0, 1.0]])).softmax(1)[0]
    assert dict(answer)["yes"] == pytest.approx(float(expected[1]))
    assert loaded.predict([50, "shop"]) == answer
    assert loaded.predict([[50, "shop"], {"age": None, "work": None}])[0] == answer
    with pytest.raises(RequestError, match="the row lacks work"):
        loaded.predict({"age": 50})
    with pytest.raises(RequestError, match="3 values for a row of 2 columns"):
        loaded.predict([1, 2, 3])


def test_values_come_back_in_their_units(tmp_path):
    made = prepare("mlp", num_classes=1, inputs=torch.rand(1, 3))
    reading = {"kind": "tensor", "target": {"name": "price", "mean": 100.0, "std": 10.0}}
    save_student(tmp_path / "s", made.network, architecture=made.architecture, kind="values", reading=reading)
    loaded = load(tmp_path / "s")
    row = torch.rand(3)
    ((name, value),) = loaded.predict(row)
    assert name == "price"
    assert value == pytest.approx(float(logits(made.network, row[None])) * 10 + 100)
    assert loaded.predict(torch.stack([row, row]))[1] == [(name, pytest.approx(value))]


def test_labels_have_probabilities_of_their_own(tmp_path):
    made = built()
    save(tmp_path / "s", made, kind="labels")
    answer = dict(load(tmp_path / "s").predict(PIXELS[0]))
    assert answer["bag"] == pytest.approx(float(logits(made.network)[0, 2].sigmoid()))


# -- students of the user's own code ------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    name = f"net_{tmp_path.name}".replace("-", "_")
    here = tmp_path / "here"
    here.mkdir()
    (here / f"{name}.py").write_text(
        "from torch import nn\n"
        "def small(num_classes, width=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, num_classes))\n"
    )
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    return name


def test_own_code_is_run_again_where_it_lies_in_our_folder(tmp_path, own, monkeypatch):
    made = prepare(f"{own}:small", num_classes=3, inputs=PIXELS, options={"width": 5})
    save(tmp_path / "student", made)
    loaded = load(tmp_path / "student")
    assert torch.equal(loaded.network(PIXELS), logits(made.network))
    assert f"code of yours, {own}:small, which was run" in loaded.notes[0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(RequestError, match="does not lie in the folder") as caught:
        load(tmp_path / "student")
    assert "run_code=True" in caught.value.fix
    assert load(tmp_path / "student", run_code=True).classes == CLASSES


def test_a_folder_cannot_call_what_it_likes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "student")
    config = json.loads((folder / "config.json").read_text())
    config["limbeck"]["architecture"] |= {"spec": "os:mkdir", "options": {"path": str(tmp_path / "made")}}
    (folder / "config.json").write_text(seal(config))
    with pytest.raises(RequestError, match="does not lie in the folder"):
        load(folder)
    assert not (tmp_path / "made").exists()


def test_a_plain_network_is_saved_too(tmp_path):
    made = prepare("mlp", num_classes=2, inputs=torch.rand(1, 3))
    save_student(tmp_path / "s", made.network.body, architecture=made.architecture)
    loaded = load(tmp_path / "s")
    assert isinstance(loaded.network, Preprocessed)
    assert loaded.predict(torch.rand(2, 3))[1][0][0] in ("0", "1")


def test_the_card_is_beside_it(tmp_path):
    folder = save(tmp_path / "student", facts=CardFacts(name="quickstart"))
    text = (folder / "README.md").read_text()
    assert "# quickstart" in text
    assert "limbeck.load" in text
    assert "shirt, boot, bag" in text
