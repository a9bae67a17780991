"""Networks of timm, torchvision and Hugging Face; none is downloaded."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from limbeck.errors import RequestError
from limbeck.models import Preprocessing, load, prepare, save_student

PIXELS = torch.rand(2, 1, 28, 28)
READING = {"kind": "image", "channels": 1, "size": [28, 28]}


def there_and_back(built, folder, inputs, classes=("a", "b", "c"), reading=READING):
    save_student(folder, built.network, architecture=built.architecture, classes=classes, reading=reading)
    loaded = load(folder)
    with torch.inference_mode():
        expected = (
            built.network.eval()(**inputs) if isinstance(inputs, dict) else built.network.eval()(inputs)
        )
    expected = expected if isinstance(expected, torch.Tensor) else expected.logits
    assert torch.equal(loaded.logits(inputs), expected)
    return loaded


def test_timm_models_load_with_their_own_library(tmp_path):
    timm = pytest.importorskip("timm")
    built = prepare("timm:resnet10t", num_classes=3, inputs=PIXELS, options={"drop_rate": 0.25})
    assert built.network.preprocessing.mean == (pytest.approx(0.449),)
    assert built.network.preprocessing.size is None
    there_and_back(built, tmp_path / "student", PIXELS)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True).eval()
    assert theirs.drop_rate == 0.25
    with torch.inference_mode():
        assert torch.equal(theirs(built.network.prepare(PIXELS)), built.network(PIXELS))
    data = timm.data.resolve_model_data_config(theirs)
    assert data["input_size"] == (1, 28, 28)
    assert data["mean"] == pytest.approx([0.449])


def test_timm_models_of_fixed_size_keep_theirs(tmp_path):
    pytest.importorskip("timm")
    options = {"depth": 1, "embed_dim": 48}
    built = prepare("timm:vit_tiny_patch16_224", num_classes=3, inputs=PIXELS, options=options)
    assert built.network.preprocessing == Preprocessing("image", 1, (224, 224), (0.5,), (0.5,))
    small = prepare("timm:vit_tiny_patch16_224", num_classes=3, inputs=PIXELS, options=options, size=32)
    assert small.network.preprocessing.size == (32, 32)
    there_and_back(small, tmp_path / "student", PIXELS)
    trained = prepare(
        "timm:vit_tiny_patch16_224",
        num_classes=3,
        inputs=PIXELS,
        options=options,
        size=32,
        weights=tmp_path / "student",
    )
    assert trained.network.preprocessing == small.network.preprocessing
    with torch.inference_mode():
        assert torch.equal(trained.network.eval()(PIXELS), small.network(PIXELS))


def test_published_timm_weights_come_from_this_machine(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")
    given = timm.create_model("resnet10t")
    save_file(given.state_dict(), tmp_path / "model.safetensors")
    stored = {"model.safetensors": str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda _repo, file: stored.get(file))
    built = prepare("timm:resnet10t", num_classes=3, inputs=PIXELS, options={"pretrained": True})
    assert built.network.preprocessing.channels == 3
    assert built.network.preprocessing.size == (176, 176)
    assert torch.equal(built.network.body.layer1[0].conv1.weight, given.layer1[0].conv1.weight)
    assert "the last layer starts at random" in built.notes[0]


def test_wrong_timm_models_are_refused():
    pytest.importorskip("timm")
    with pytest.raises(RequestError, match="no model 'resnt18'") as caught:
        prepare("timm:resnt18", num_classes=3, inputs=PIXELS)
    assert caught.value.near[0] == "timm:resnet18"
    with pytest.raises(RequestError, match="no weights 'a1_in2k'") as caught:
        prepare("timm:resnet18.a1_in2k", num_classes=3, inputs=PIXELS)
    assert "a1_in1k" in caught.value.near
    with pytest.raises(RequestError, match="no option 'drop_rte'") as caught:
        prepare("timm:resnet18", num_classes=3, inputs=PIXELS, options={"drop_rte": 0.1})
    assert caught.value.near[0] == "drop_rate"
    with pytest.raises(RequestError, match="not on this machine") as caught:
        prepare("timm:resnet18", num_classes=3, inputs=PIXELS, options={"pretrained": True})
    assert "download = true" in caught.value.fix
    with pytest.raises(RequestError, match="takes pictures"):
        prepare("timm:resnet18", num_classes=3, inputs=torch.rand(2, 5))


def test_torchvision_models(tmp_path):
    pytest.importorskip("torchvision")
    built = prepare("torchvision:mobilenet_v3_small", num_classes=3, inputs=PIXELS, options={"dropout": 0.1})
    assert built.network.preprocessing.channels == 3
    assert built.network.preprocessing.mean == (0.485, 0.456, 0.406)
    there_and_back(built, tmp_path / "student", PIXELS)
    with pytest.raises(RequestError, match="no classification model 'resnet19'"):
        prepare("torchvision:resnet19", num_classes=3, inputs=PIXELS)
    with pytest.raises(RequestError, match="no option 'dropot'"):
        prepare("torchvision:mobilenet_v3_small", num_classes=3, inputs=PIXELS, options={"dropot": 0.1})
    with pytest.raises(RequestError, match="3 channels"):
        prepare("torchvision:resnet18", num_classes=3, inputs=PIXELS, channels=1)


def test_published_torchvision_weights_come_from_this_machine(tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    wanted = {"spec": "torchvision:squeezenet1_1", "num_classes": 1000, "inputs": PIXELS}
    with pytest.raises(RequestError, match="not on this machine"):
        prepare(**wanted, options={"pretrained": True})
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    given = torchvision.models.squeezenet1_1()
    (tmp_path / "checkpoints").mkdir()
    torch.save(given.state_dict(), tmp_path / "checkpoints" / weights.url.rpartition("/")[2])
    built = prepare(**wanted, options={"pretrained": True})
    assert torch.equal(built.network.body.features[0].weight, given.features[0].weight)
    assert built.network.preprocessing.size == (224, 224)
    assert built.classes[0] == "tench"
    other = prepare(**{**wanted, "num_classes": 3}, options={"pretrained": True})
    assert "classifier.1, starts at random" in other.notes[0]
    assert other.classes is None


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def text_model(transformers, tmp_path):
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    config.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


IDS = {
    "input_ids": torch.randint(0, 30, (3, 7)),
    "attention_mask": torch.ones(3, 7, dtype=torch.long),
}


def test_hugging_face_text_models_load_with_their_own_library(transformers, text_model, tmp_path):
    built = prepare(f"hf:{text_model}", num_classes=3, inputs=IDS, options={"num_hidden_layers": 1})
    assert "start at random" in built.notes[0]
    assert len(built.network.body.bert.encoder.layer) == 1
    loaded = there_and_back(built, tmp_path / "student", IDS, reading={"kind": "tokens"})
    assert len(loaded.predict(IDS)) == 3
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}
    with torch.inference_mode():
        assert torch.equal(theirs(**IDS).logits, built.network(**IDS).logits)
    # The folder is a model of theirs with trained weights and class names.
    again = prepare(f"hf:{tmp_path / 'student'}", num_classes=3, inputs=IDS)
    assert (again.classes, again.notes) == (["a", "b", "c"], [])
    other = prepare(f"hf:{tmp_path / 'student'}", num_classes=5, inputs=IDS)
    assert other.classes is None
    assert other.notes[0].endswith("starts at random: classifier")


def test_hugging_face_image_models(transformers, tmp_path):
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_channels=3,
    )
    config.save_pretrained(tmp_path / "vit")
    settings = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"height": 16, "width": 16},
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(settings))
    built = prepare(f"hf:{tmp_path / 'vit'}", num_classes=3, inputs=PIXELS)
    assert built.network.preprocessing == Preprocessing(
        "image", 3, (16, 16), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)
    )
    loaded = there_and_back(built, tmp_path / "student", PIXELS)
    assert loaded.preprocessing == built.network.preprocessing
    processor = json.loads((tmp_path / "student" / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.1, 0.2, 0.3]
    assert processor["size"] == {"height": 16, "width": 16}


def test_wrong_hugging_face_models_are_refused(transformers, text_model, tmp_path):
    with pytest.raises(RequestError, match=r"no folder \./absent"):
        prepare("hf:./absent", num_classes=3, inputs=IDS)
    with pytest.raises(RequestError, match="neither a folder nor a model on this machine") as caught:
        prepare("hf:nobody/absent", num_classes=3, inputs=IDS)
    assert "download = true" in caught.value.fix
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no config\.json"):
        prepare(f"hf:{tmp_path / 'empty'}", num_classes=3, inputs=IDS)
    with pytest.raises(RequestError, match="no option 'num_hiden_layers'") as caught:
        prepare(f"hf:{text_model}", num_classes=3, inputs=IDS, options={"num_hiden_layers": 1})
    assert caught.value.near[0] == "num_hidden_layers"
    with pytest.raises(RequestError, match="takes tokens or rows"):
        prepare(f"hf:{text_model}", num_classes=3, inputs=PIXELS)
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="no model that transformers knows"):
        prepare(f"hf:{tmp_path / 'empty'}", num_classes=3, inputs=IDS)


def test_weights_of_another_hugging_face_model_are_refused(transformers, text_model, tmp_path):
    built = prepare(f"hf:{text_model}", num_classes=3, inputs=IDS)
    save_student(
        tmp_path / "student", built.network, architecture=built.architecture, reading={"kind": "tokens"}
    )
    with pytest.raises(RequestError, match="do not fit"):
        prepare(f"hf:{tmp_path / 'student'}", num_classes=3, inputs=IDS, options={"hidden_size": 4})
    file = tmp_path / "student" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RequestError, match="damaged"):
        prepare(f"hf:{tmp_path / 'student'}", num_classes=3, inputs=IDS)
