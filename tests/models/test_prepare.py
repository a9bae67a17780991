from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from limbeck.errors import RequestError
from limbeck.models import Preprocessed, Preprocessing, build, prepare
from limbeck.models.building import Sample

STATISTICS = ((0.3,), (0.35,))


def test_a_built_in_network_is_like_the_data():
    pixels = torch.rand(2, 1, 28, 28)
    built = prepare("cnn-tiny", num_classes=10, inputs=pixels, statistics=STATISTICS)
    assert built.network.preprocessing == Preprocessing("image", 1, None, *STATISTICS)
    assert (built.architecture.channels, built.architecture.size) == (1, (28, 28))
    assert built.network(pixels).shape == (2, 10)
    assert built.notes == []


def test_channels_and_size_of_its_own():
    pixels = torch.rand(2, 1, 28, 28)
    built = prepare("cnn-tiny", num_classes=10, inputs=pixels, channels=3, size=16, normalize="imagenet")
    assert built.network.preprocessing == Preprocessing(
        "image", 3, (16, 16), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert built.network.body.conv1.in_channels == 3
    assert built.network(pixels).shape == (2, 10)


def test_rows_enter_as_they_are():
    built = prepare("mlp", num_classes=3, inputs=torch.rand(2, 14))
    assert built.network.preprocessing == Preprocessing()
    assert built.network(torch.rand(4, 14)).shape == (4, 3)
    with pytest.raises(RequestError, match="for pictures"):
        prepare("mlp", num_classes=3, inputs=torch.rand(2, 14), normalize="imagenet")


def test_kinds_of_inputs():
    assert Sample.of(torch.rand(2, 3, 8, 6)) == Sample("image", 3, (8, 6))
    assert Sample.of({"pixel_values": torch.rand(2, 3, 8, 6)}) == Sample("image", 3, (8, 6))
    assert Sample.of(torch.rand(2, 5)) == Sample("row", 5)
    assert Sample.of(torch.zeros(2, 5, dtype=torch.long)) == Sample("tokens")
    assert Sample.of({"input_ids": torch.zeros(2, 5, dtype=torch.long)}) == Sample("tokens")


def test_weights_are_loaded_and_said(tmp_path):
    given = build("cnn-tiny", num_classes=10, channels=1, size=28)
    save_file({f"module.{k}": v for k, v in given.state_dict().items()}, tmp_path / "w.safetensors")
    built = prepare(
        "cnn-tiny", num_classes=10, inputs=torch.rand(1, 1, 28, 28), weights=tmp_path / "w.safetensors"
    )
    assert torch.equal(built.network.body.fc.weight, given.fc.weight)
    assert "module." in built.notes[0]


# -- module:function ----------------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn

made = []

def plain(num_classes, channels):
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(channels, 4, 3), pooled, nn.Linear(4, num_classes))

def sized(*, num_classes, size, hidden=8):
    made.append((size, hidden))
    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, hidden), nn.Linear(hidden, num_classes))

def needy(num_classes, secret):
    return nn.Linear(secret, num_classes)

def anything(num_classes, **more):
    return nn.Linear(len(more), num_classes)

def number():
    return 3

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(9, num_classes)
    def forward(self, x):
        return self.fc(x.flatten(1))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's in the folder that we are in; each test has another name."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_function_gets_what_it_declares(module):
    pixels = torch.rand(2, 1, 3, 3)
    for name, options in (("plain", {}), ("sized", {"hidden": 5}), ("Net", {})):
        built = prepare(f"{module}:{name}", num_classes=4, inputs=pixels, options=options)
        assert built.network(pixels).shape == (2, 4)
        assert "code of yours" in built.notes[0]
    assert prepare(f"{module}:anything", num_classes=4, inputs=pixels, options={"a": 1}).architecture.options


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("sized", {"hiden": 5}, "no option 'hiden'"),
        ("needy", {}, "needs 'secret'"),
        ("plian", {}, "no function or class 'plian'"),
        ("number", {}, "returned a int"),
    ],
)
def test_wrong_functions_are_refused(module, function, options, message):
    with pytest.raises(RequestError, match=message) as caught:
        prepare(f"{module}:{function}", num_classes=4, inputs=torch.rand(2, 1, 3, 3), options=options)
    if function == "plian":
        assert caught.value.near[0] == "plain"


def test_absent_modules_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="no module 'tim'") as caught:
        prepare("tim:resnet18", num_classes=4, inputs=torch.rand(2, 1, 3, 3))
    assert caught.value.fix == "timm:resnet18"
    (tmp_path / "needs_more.py").write_text("import absent_package_of_nobody\n")
    with pytest.raises(RequestError, match="imports absent_package_of_nobody"):
        prepare("needs_more:f", num_classes=4, inputs=torch.rand(2, 1, 3, 3))


def test_a_function_may_bring_its_preprocessing(tmp_path, monkeypatch):
    (tmp_path / "brings_own.py").write_text(
        "from torch import nn\n"
        "from limbeck.models import Preprocessed, Preprocessing\n"
        "def net(num_classes):\n"
        "    body = nn.Sequential(nn.Flatten(), nn.Linear(9, num_classes))\n"
        "    return Preprocessed(body, Preprocessing('image', 1, None, (0.5,), (0.5,)))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    built = prepare("brings_own:net", num_classes=2, inputs=torch.rand(1, 1, 3, 3), statistics=STATISTICS)
    assert built.network.preprocessing.mean == (0.5,)
    assert not isinstance(built.network.body, Preprocessed)
    assert isinstance(built.network.body, nn.Sequential)


# -- trained weights that are not in the repository ---------------------------------------------------------


def shown(root: Path, name: str, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test pictures of a CIFAR set, each class as often, and their labels."""
    np = pytest.importorskip("numpy")
    image = pytest.importorskip("PIL.Image")
    sheet = np.asarray(image.open(sorted((root / name).glob("test-*.webp"))[0]))
    sheet = sheet.reshape(100, 32, 50, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)[:number]
    pixels = torch.from_numpy(sheet.copy()).permute(0, 3, 1, 2).float() / 255
    return pixels, torch.from_numpy(np.load(root / name / "labels.npz")["test"][:number].astype("int64"))


@pytest.mark.parametrize(
    ("file", "model", "data", "classes", "normalize", "options", "accuracy"),
    [
        ("cifar100_resnet56", "resnet56", "cifar100", 100, "cifar100", {}, 0.680),
        ("cifar10_resnet20", "resnet20", "cifar10", 10, "imagenet", {"shortcut": "padding"}, 0.917),
        ("cifar10_resnet56", "resnet56", "cifar10", 10, "imagenet", {"shortcut": "padding"}, 0.934),
    ],
)
def test_published_weights_load_and_reach_their_score(
    tmp_path, file, model, data, classes, normalize, options, accuracy
):
    root = Path(os.environ.get("LIMBECK_DATA", "absent"))
    weights = root / "weights" / f"{file}.safetensors"
    if not weights.is_file():
        pytest.skip(f"LIMBECK_DATA names no folder with weights/{file}.safetensors")
    state = load_file(weights)  # some files call the last layer `linear`
    renamed = tmp_path / "teacher.safetensors"
    save_file({name.replace("linear.", "fc."): value for name, value in state.items()}, renamed)
    pixels, labels = shown(root, data, 500)
    built = prepare(
        model, num_classes=classes, inputs=pixels, weights=renamed, normalize=normalize, options=options
    )
    with torch.inference_mode():
        right = (built.network.eval()(pixels).argmax(1) == labels).float().mean()
    assert float(right) == pytest.approx(accuracy, abs=0.06)
