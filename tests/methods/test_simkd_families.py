"""SimKD between networks of any family without a layer named, and its network saved, loaded and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import limbeck
from limbeck.errors import RequestError
from limbeck.methods import SimKD
from limbeck.models import Preprocessed, Preprocessing, build, save_student
from limbeck.models.building import Architecture
from limbeck.models.composed import describe, outward
from limbeck.task import Classification
from tests.methods.families import CLASSES, batch, network
from tests.methods.tapped import encoder, texts

#: Teacher, student, the layers that are found, and whether the projector ends in a ReLU.
FAMILIES = [
    ("resnet14", "resnet8", "layer3", "layer3", True),
    ("resnet8", "vgg8", "layer3", "layer5", True),
    ("wrn16-1", "shufflenetv2", "bn1", "layer3", True),
    ("wrn16-1", "shufflenetv1", "bn1", "layer3", True),
    ("shufflenetv2", "resnet8", "bn2", "layer3", True),
    ("resnet8", "vit", "layer3", "blocks.3", True),
    ("vit", "mobilenetv2", "head.input", "layer4", False),
    ("vit-mean", "resnet8", "norm", "layer3", False),
    ("mixer", "resnet8", "norm", "layer3", False),
    ("swin", "resnet8", "norm", "layer3", False),
]


@pytest.mark.filterwarnings("ignore:simkd averages")
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize(
    ("teacher", "student", "theirs", "own", "relu"), FAMILIES, ids=[f"{e[0]}-{e[1]}" for e in FAMILIES]
)
def test_any_two_families_train_without_a_layer_named(
    teacher: str, student: str, theirs: str, own: str, relu: bool, size: int, channels: int
) -> None:
    if teacher == "swin" and size == 28:
        pytest.skip("its windows do not divide the picture")
    networks = network(student, size, channels, 1), network(teacher, size, channels, 2)
    given = batch(size, channels)
    made = SimKD(*networks, task=Classification(CLASSES), example=given)
    assert (made.heads[0].path, made.cut) == (theirs, own)
    assert made.tails[0].plan.final_relu == relu
    made.enter(made.stages()[0])
    made(given).total.backward()
    trained = list(made.stages()[0].updates[0].parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    deployed = made.deployable().eval()
    assert deployed(given["inputs"]).shape == (4, CLASSES)
    assert deployed(given["inputs"][:1]).shape == (1, CLASSES)


def test_rows_of_numbers_are_matched_at_the_vector_that_enters_the_classifier() -> None:
    torch.manual_seed(0)
    networks = [
        nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, CLASSES)).eval() for width in (6, 8)
    ]
    given = {"inputs": torch.rand(6, 5)}
    made = SimKD(*networks, example=given)
    assert (made.cut, made.heads[0].path) == ("2.input", "2.input")
    made.enter(made.stages()[0])
    made(given).total.backward()
    assert made.deployable().eval()(given["inputs"]).shape == (6, CLASSES)


def test_texts_are_matched_at_the_vector_that_enters_the_classifier() -> None:
    made = SimKD(encoder(4), encoder(6), example=texts())
    assert (made.cut, made.heads[0].path) == ("fc.input", "fc.input")
    made.enter(made.stages()[0])
    made(texts()).total.backward()
    assert made.deployable().eval()(**texts()["inputs"]).shape == (6, CLASSES)


def parts(reuse_from: str | None = None, size: int = 28) -> tuple[SimKD, list[Architecture]]:
    """A method of two built-in networks behind a preprocessing, and what builds them."""
    names = ("cnn-tiny", "resnet8")
    made = [Architecture(name, CLASSES, 1, (size, size)) for name in names]
    networks = [
        Preprocessed(network(name, size, 1, seed), Preprocessing("image", 1, None, (0.3,), (0.4,)))
        for seed, name in enumerate(names)
    ]
    return SimKD(*networks, example=batch(size, 1), factor=4, reuse_from=reuse_from), made


@pytest.mark.filterwarnings("ignore:simkd averages")
@pytest.mark.parametrize("reuse_from", [None, "layer3"])
def test_what_is_deployed_can_be_saved_and_loaded(tmp_path: Path, reuse_from: str | None) -> None:
    method, (student, teacher) = parts(reuse_from)
    inputs = batch(28, 1)["inputs"]
    deployed = method.deployable().eval()
    with torch.no_grad():
        said = deployed(inputs)
    described = describe(deployed, student, [teacher] if reuse_from else [])
    moved = outward(deployed).eval()
    assert isinstance(moved, Preprocessed)
    with torch.no_grad():
        assert torch.equal(moved(inputs), said)
    folder = save_student(
        tmp_path / "student",
        moved,
        architecture=described,
        classes=list("abcd"),
        reading={"kind": "image", "channels": 1, "size": [28, 28]},
    )
    loaded = limbeck.load(folder)
    with torch.no_grad():
        assert torch.equal(loaded.network(inputs), said)
    assert not any("body.fc" in name for name in loaded.network.state_dict())
    assert loaded.classes == list("abcd")


def test_the_name_alone_describes_no_network() -> None:
    with pytest.raises(RequestError, match="only its own folder can describe"):
        build("composed", num_classes=3, channels=1, size=28)


@pytest.mark.filterwarnings("ignore:simkd averages")
@pytest.mark.parametrize("reuse_from", [None, "layer3"])
def test_what_is_deployed_is_exported_with_a_free_batch(tmp_path: Path, reuse_from: str | None) -> None:
    pytest.importorskip("onnxruntime")
    from limbeck._export.onnx import export_onnx

    method, _ = parts(reuse_from)
    deployed = method.deployable().eval()
    given = batch(28, 1)
    written = export_onnx(deployed, tmp_path, given, validation_batches=[given], task=Classification(CLASSES))
    assert written.difference < 1e-4
    assert set(written.batches) == {1, 2, 7}
    stored = sum(p.numel() * 4 for p in deployed.parameters())
    assert written.bytes < 1.2 * stored + 100_000  # neither the teacher nor the student's classifier
