"""What is decided by rule: low precision, layout, the steps of a teacher."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from limbeck import Classification
from limbeck._fast import gain, processor
from limbeck._fast.choosing import wanted
from limbeck._fast.comparison import difference, tolerance
from limbeck._fast.gain import gains_from_bf16, intensity
from limbeck._fast.layout import has_pictures, plain_pictures, refuses_channels_last, turned_pictures
from limbeck._fast.steps import Fast
from limbeck.errors import RequestError
from limbeck.models.cifar import cifar_resnet
from limbeck.task import Tokens
from limbeck.task.batches import first_samples
from tests.fast.networks import Block, Flat, resnet

TASK = Classification()


def batch(size: int = 32) -> dict[str, torch.Tensor]:
    return {"inputs": torch.rand(4, 3, size, size)}


def able(patch: pytest.MonkeyPatch, *names: str) -> None:
    patch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))


def test_a_processor_has_bf16_by_avx512_or_amx(monkeypatch):
    able(monkeypatch)
    assert not processor.supports_bf16("cpu")
    able(monkeypatch, "avx512_bf16")
    assert processor.supports_bf16("cpu")
    assert "AVX512-BF16" in processor.name_of_bf16("cpu")
    able(monkeypatch, "amx_bf16")
    assert processor.supports_bf16("cpu")
    assert "AMX" in processor.name_of_bf16("cpu")
    assert not processor.supports_bf16("mps")


def test_older_torch_is_asked_in_its_own_way(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for avx, amx in ((False, False), (True, False), (True, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert processor.supports_bf16("cpu") is avx
        assert processor.has_amx() is amx
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not processor.has_amx()


def test_networks_that_multiply_much_gain_and_those_that_move_much_do_not(monkeypatch):
    able(monkeypatch, "avx512_bf16")
    residual = cifar_resnet(num_classes=100, depth=20)
    mobile = torchvision.models.mobilenet_v2(num_classes=100)
    shuffle = torchvision.models.shufflenet_v2_x1_0(num_classes=100)
    assert gains_from_bf16(residual, batch(), TASK, "cpu") == (True, "this processor has AVX512-BF16")
    for network in (mobile, shuffle):
        yes, why = gains_from_bf16(network, batch(), TASK, "cpu")
        assert not yes
        assert why == "bf16 gains nothing with this network"
    able(monkeypatch)
    assert gains_from_bf16(residual, batch(), TASK, "cpu") == (False, "this cpu has no bfloat16")


def test_intensity_does_not_depend_on_the_size_of_the_batch():
    large = {"inputs": torch.rand(32, 3, 32, 32)}
    assert intensity(resnet(), large, TASK) == pytest.approx(intensity(resnet(), batch(), TASK))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 8, bias=False))
    # 2 * 192 * 8 operations; 192 + 8 numbers are written.
    assert intensity(linear, batch(8), TASK) == pytest.approx(2 * 192 * 8 / 200)
    assert gain._INTENSITY > 1


def test_channels_last_is_refused_with_a_reason_and_leaves_the_network_alone():
    network = Flat()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    reason = refuses_channels_last(network, batch(8), TASK, training=True)
    assert reason is not None
    assert reason.startswith("fails in it (")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.is_contiguous() for value in network.state_dict().values())
    assert network.conv.weight.grad is None
    assert refuses_channels_last(resnet(), batch(), TASK, training=True) is None
    assert refuses_channels_last(Block("plain"), batch(8), TASK) is None
    words = {"inputs": {"input_ids": torch.zeros(2, 5, dtype=torch.long)}}
    assert refuses_channels_last(nn.Embedding(4, 3), words, Tokens()) == "takes no pictures"


def test_a_network_that_reads_memory_as_it_lies_differs(monkeypatch):
    class Strided(nn.Module):
        def forward(self, pixels):
            flat = torch.as_strided(pixels, (len(pixels), 192), (192, 1))
            return flat[:, :5]

    reason = refuses_channels_last(Strided(), batch(8), TASK)
    assert reason is not None
    assert "differs in it" in reason


def test_chance_and_gradients_of_zero_do_not_count_as_a_difference():
    def net(*between):
        ends = [nn.Conv2d(3, 8, 3, padding=1), *between, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(288, 5)]
        return nn.Sequential(*ends)

    torch.manual_seed(0)
    # Dropout draws for other places in another layout; a bias before a norm has a gradient of rounding alone.
    for network in (net(nn.ReLU(), nn.Dropout(0.5)), net(nn.GroupNorm(8, 8), nn.ReLU())):
        samples, state = batch(8), torch.get_rng_state()
        assert refuses_channels_last(network, samples, TASK, training=True) is None
        assert torch.equal(torch.get_rng_state(), state)
        assert all(parameter.grad is None for parameter in network.parameters())


def test_a_gradient_that_only_another_layout_gets_wrong_is_found():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            ctx.turned = not value.is_contiguous()
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2 if ctx.turned else gradient

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, pixels):
            return self.fc(Wrong.apply(self.conv(pixels)).mean((2, 3)))

    assert refuses_channels_last(Net(), batch(8), TASK) is None
    assert "differs in it" in (refuses_channels_last(Net(), batch(8), TASK, training=True) or "")


def test_checks_of_a_network_about_its_layout_are_a_reason():
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, pixels):
            value = self.conv(pixels)
            assert value.is_contiguous(), "rows first, please"
            return value.mean((2, 3))

    assert refuses_channels_last(Strict(), batch(8), TASK) == "fails in it (rows first, please)"


def test_pictures_in_a_mapping_are_turned():
    samples = {"inputs": {"pixels": batch(8)["inputs"], "ids": torch.zeros(4, 5, dtype=torch.long)}}
    assert has_pictures(samples)
    turned = turned_pictures(samples)["inputs"]
    assert turned["pixels"].is_contiguous(memory_format=torch.channels_last)
    assert turned["ids"] is samples["inputs"]["ids"]
    assert plain_pictures({"inputs": turned})["inputs"]["pixels"].is_contiguous()


def test_differences_of_nested_values():
    one = {"a": torch.tensor([1.0, -4.0]), "b": [torch.tensor([float("nan"), float("-inf"), 2.0])]}
    other = {"a": torch.tensor([1.0, -3.0]), "b": [torch.tensor([float("nan"), float("-inf"), 2.0])]}
    assert difference(one, one) == 0
    assert difference(one, other) == pytest.approx(0.25)
    assert difference(torch.tensor([1.0]), torch.tensor([float("inf")])) == float("inf")
    assert difference(torch.tensor([float("inf")]), torch.tensor([float("-inf")])) == float("inf")
    assert difference(torch.ones(2), torch.ones(3)) == float("inf")
    assert difference(torch.tensor([1 + 2j]), torch.tensor([1 + 1j])) == pytest.approx(0.5)
    assert difference(torch.zeros(0), torch.zeros(0)) == 0


def test_what_precision_explains():
    assert tolerance(torch.zeros(2)) == tolerance({"ids": torch.zeros(2, dtype=torch.long)}) == 1e-4
    assert tolerance([torch.zeros(2).half(), torch.zeros(2)]) == 4 * 2**-10
    assert tolerance([]) == 1e-4


def test_steps_by_name():
    assert Fast.of(["bf16", "fold"]).names() == ["fold", "bf16"]
    assert Fast().names() == []
    with pytest.raises(RequestError, match="no step 'fast' for a teacher"):
        Fast.of(["fast"])
    with pytest.raises(RequestError, match="steps 'fold' are one string"):
        Fast.of("fold")


def test_a_teacher_is_compiled_only_in_long_runs_where_that_pays(monkeypatch):
    able(monkeypatch, "amx_bf16", "avx512_bf16")
    assert wanted(resnet(), batch(), TASK, "cpu", long=True).compile == processor.can_compile("cpu")
    assert wanted(resnet(), batch(), TASK, "cpu").names() == ["fold", "channels_last", "bf16"]
    able(monkeypatch, "avx512_bf16")
    assert not wanted(resnet(), batch(), TASK, "cpu", long=True).compile
    able(monkeypatch)
    rows = {"inputs": torch.rand(4, 6)}
    assert wanted(nn.Linear(6, 2), rows, TASK, "cpu").names() == ["fold"]
    assert wanted(resnet(), batch(), TASK, "mps").names() == ["fold"]


def test_first_samples_cut_what_has_a_row_a_sample():
    batch = {"inputs": {"a": torch.arange(6).view(6, 1)}, "index": torch.arange(6), "count": {"samples": 6.0}}
    cut = first_samples(batch, 2)
    assert cut["inputs"]["a"].tolist() == [[0], [1]]
    assert cut["index"].tolist() == [0, 1]
    assert cut["count"] == {"samples": 6.0}


def test_the_compiler_is_the_one_that_torch_would_call(tmp_path, monkeypatch):
    for name in ("clang++", "cl"):
        (tmp_path / name).write_text("", encoding="ascii")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for system, name in (("linux", "g++"), ("darwin", "clang++"), ("win32", "cl")):
        monkeypatch.setattr("sys.platform", system)
        assert processor.compiler() == name
    monkeypatch.setattr("sys.platform", "linux")
    assert not processor.can_compile("cpu")
    assert processor.can_compile("cuda")
    monkeypatch.setenv("CXX", "clang++")
    assert processor.can_compile("cpu")
