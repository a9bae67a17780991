"""The teacher in its faster forms: the same answers within a tolerance, or not in that form."""

from __future__ import annotations

import copy
import logging
import pickle
import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from limbeck import Teacher
from limbeck._fast.comparison import difference
from limbeck._fast.steps import Fast
from limbeck._run.networks import Reordered
from limbeck._taps.survey import is_compiled
from limbeck.ensemble import Ensemble
from limbeck.errors import RequestError
from limbeck.methods import KD
from tests.fast.networks import Block, Flat, lived, resnet

ALL = Fast(fold=True, channels_last=True, bf16=True)


def batch(size: int = 32, samples: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"inputs": torch.rand(samples, 3, size, size, generator=generator)}


@pytest.mark.parametrize(
    ("make", "size", "path"),
    [
        (resnet, 32, "layer2"),
        (lambda: torchvision.models.mobilenet_v2(num_classes=5), 32, "features.7"),
        (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5), 32, "stage3"),
        (lambda: timm.create_model("test_vit", num_classes=5, img_size=64), 64, "blocks.2"),
    ],
    ids=["resnet", "mobilenet", "shufflenet", "vit"],
)
@pytest.mark.parametrize(("fast", "tolerance"), [(Fast(fold=True, channels_last=True), 1e-4), (ALL, 2e-2)])
def test_every_form_answers_as_the_plain_teacher(make, size, path, fast, tolerance):
    network, samples = lived(make()), batch(size)
    plain, quick = Teacher(network, paths=[path]), Teacher(network, paths=[path], fast=fast)
    one, other = plain(samples), quick(samples)
    assert quick.fast == fast, "a step was left out"
    assert other.output.dtype == torch.float32
    assert other[path].is_contiguous()
    assert 0 <= difference(one, other) < tolerance
    early = quick(samples, output=False)
    assert early.output is None
    assert difference(one[path], early[path]) < tolerance


def test_the_plain_network_stays_as_it_was():
    network, samples = resnet(), batch()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = [name for name, _ in network.named_modules()]
    teacher = Teacher(network, paths=["layer1"], fast=ALL)
    answer = Teacher(network)(samples).output
    teacher(samples)
    assert teacher.model is network
    assert [name for name, _ in network.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.is_contiguous() for value in network.state_dict().values())
    assert torch.equal(Teacher(network)(samples).output, answer)
    method = KD(resnet(), teacher)
    assert not {id(p) for p in network.parameters()} & {id(p) for p in method.parameters()}


def test_a_step_that_fails_is_left_out_with_one_line(caplog):
    network, samples = Flat().eval(), batch(8)
    quick = Teacher(network, fast=Fast(fold=True, channels_last=True))
    with caplog.at_level(logging.WARNING):
        answer = quick(samples).output
        quick(samples)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("the teacher runs without channels_last: it fails with it (")
    assert quick.fast.names() == ["fold"]
    assert torch.equal(answer, Teacher(network)(samples).output)


def test_a_step_that_differs_is_left_out_with_its_difference(caplog):
    class Sensitive(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 4)

        def forward(self, pixels):
            value = self.fc(pixels.flatten(1))
            return torch.sin(value * 1e4)  # what rounding leaves is all that is seen

    quick, samples = Teacher(Sensitive(), fast=Fast(bf16=True)), batch(8)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(quick(samples).output, Teacher(quick.model)(samples).output)
    assert "without bf16: it answers differently by" in caplog.text
    assert "of the largest value, allowed 0.02" in caplog.text
    assert quick.fast == Fast()


def test_a_teacher_that_names_other_classes_in_bf16_runs_without(caplog):
    class Tied(nn.Module):
        """Two classes that only low digits tell apart, beside a large third value."""

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 1)

        def forward(self, pixels):
            value = self.fc(pixels.flatten(1))
            low = 1e-3 * torch.sin(value * 1e4)
            return torch.cat([low, -low, torch.full_like(low, -1.0)], 1)

    torch.manual_seed(0)
    quick, samples = Teacher(Tied(), fast=["bf16"]), batch(8, samples=32)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(quick(samples).output, Teacher(quick.model)(samples).output)
    (said,) = [record.message for record in caplog.records]
    pattern = r"the teacher runs without bf16: it names other classes for \d+ of 32, allowed 5%"
    assert re.fullmatch(pattern, said)


def test_whatever_only_a_faster_form_raises_is_no_crash(caplog):
    class Asks(nn.Module):
        """Reads what the place of a folded norm has not."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, pixels):
            return self.norm(self.conv(pixels)).mean((2, 3)) / self.norm.num_features

    network, samples = lived(Asks()), batch(8)
    with caplog.at_level(logging.WARNING):
        answer = Teacher(network, fast=["fold"])(samples).output
    assert torch.equal(answer, Teacher(network)(samples).output)
    assert "without fold: it fails with it (" in caplog.text
    # The first answer of a teacher that drops every step is the plain one too, in its own precision.
    assert Teacher(network.double(), fast=["fold"])(samples).output.dtype == torch.float64


def test_changed_weights_are_seen():
    network, samples = resnet(), batch()
    quick = Teacher(network, fast=Fast(fold=True))
    quick(samples)
    with torch.no_grad():
        network.fc.bias += 1
    assert difference(Teacher(network)(samples), quick(samples)) < 1e-4
    torch.manual_seed(7)
    network.fc = nn.Linear(64, 10)  # replaced, not changed
    assert difference(Teacher(network)(samples), quick(samples)) < 1e-4
    other = {name: value * 1.5 for name, value in network.state_dict().items()}
    network.load_state_dict(other, assign=True)
    assert difference(Teacher(network)(samples), quick(samples)) < 1e-4


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_teacher_of_another_precision_has_a_copy_in_float32(kind):
    network, samples = resnet().to(kind), batch()
    quick = Teacher(network, fast=ALL)
    assert difference(Teacher(network)(samples), quick(samples)) < 3.2e-2
    assert quick.fast == ALL
    assert quick(samples).output.dtype == torch.float32
    assert all(weight.dtype == kind for weight in network.parameters())


def test_networks_in_wrappers_and_ensembles_have_a_faster_form():
    samples = batch()
    reordered = Reordered(resnet(), list(range(9, -1, -1)))
    for network, path in ((reordered, "layer1"), (Ensemble([resnet(), reordered]), "networks.0.layer1")):
        quick = Teacher(network, paths=[path], fast=ALL)
        assert difference(Teacher(network, paths=[path])(samples), quick(samples)) < 2e-2
        assert quick.fast == ALL
        left = [m for m in quick._copy.taps.model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert not left


def test_inference_mode_does_no_harm():
    with torch.inference_mode():
        network = resnet()
        quick = Teacher(network, paths=["layer1"], fast=ALL)
        inside = quick(batch())
    assert quick.fast == ALL
    assert difference(inside, quick(batch())) == 0


def test_under_the_autocast_of_a_loop_the_answers_are_the_same():
    network, samples = resnet(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        plain = Teacher(network)(samples)
        quick = Teacher(network, fast=["fold", "channels_last"])(samples)
    assert torch.equal(plain.output, Teacher(network)(samples).output)
    assert difference(plain, quick) < 1e-4


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_of_a_teacher_answer_the_same(again):
    teacher, samples = Teacher(resnet(), paths=["layer1"], fast=ALL), batch()
    said = teacher(samples)
    other = again(teacher)
    assert other._copy is None
    assert difference(said, other(samples)) == 0


def test_reading_other_layers_keeps_the_form():
    teacher = Teacher(resnet(), fast=ALL).reading(["layer1"])
    assert teacher.fast == ALL
    assert set(teacher(batch()).layers) == {"layer1"}


def test_a_tapped_convolution_keeps_its_value():
    network, samples = lived(Block("plain")), batch(8)
    quick = Teacher(network, paths=["conv", "norm"], fast=Fast(fold=True))
    plain = Teacher(network, paths=["conv", "norm"])
    assert difference(plain(samples), quick(samples)) < 1e-5


def test_keyword_inputs_of_a_language_model_pass():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 40}
    network = BertForSequenceClassification(BertConfig(num_hidden_layers=2, num_labels=3, **sizes)).eval()
    ids = torch.randint(1, 40, (8, 12))
    samples = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    quick = Teacher(network, paths=["bert.encoder.layer.0"], fast=ALL)
    plain = Teacher(network, paths=["bert.encoder.layer.0"])
    assert difference(plain(samples), quick(samples)) < 2e-2


def test_a_compiled_copy_answers_the_same_and_the_model_is_not_compiled():
    network, samples = Block("plain").eval(), batch(8)
    quick = Teacher(network, paths=["norm"], fast=Fast(fold=True, compile=True))
    plain = Teacher(network, paths=["norm"])
    assert difference(plain(samples), quick(samples)) < 1e-4
    assert quick.fast.compile
    assert quick(samples, output=False).output is None
    assert difference(plain(samples)["norm"], quick(samples, output=False)["norm"]) < 1e-4
    assert not is_compiled(network)


class Noisy(nn.Module):
    """Draws in eval mode, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(192, 4), nn.Linear(4, 4)

    def forward(self, pixels):
        return self.second(nn.functional.dropout(self.first(pixels.flatten(1)), 0.5))


def test_a_teacher_with_noise_in_eval_mode_is_found_and_named():
    with pytest.raises(RequestError, match=r"random in eval mode, first seen in what second \(Linear\)"):
        Teacher(Noisy()).check_steady(batch(8))
    Teacher(resnet()).check_steady(batch())
    Teacher(resnet()).check_steady(batch(samples=1))


def test_a_teacher_that_mixes_the_samples_of_a_batch_is_found():
    network = Block("plain")
    network.norm = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(RequestError, match=r"another way beside other samples, .* mixes the samples"):
        Teacher(network).check_steady(batch(8))
