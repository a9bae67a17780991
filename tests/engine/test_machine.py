"""Layout, precision and compilation of what trains: faster, the same to rounding, seen nowhere else."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch._dynamo.utils import counters

from limbeck import Method, Teacher
from limbeck.engine import Machine, Training, fit
from limbeck.methods.kd import KD
from limbeck.methods.peer_mutual_kd import PeerMutualKD
from limbeck.methods.semckd import SemCKD
from limbeck.methods.sskd import SSKD
from limbeck.taps import untapped
from tests.engine.test_resume import equal_after_stop, run
from tests.engine.tiny import Staged, Supervised, cnn, data, mlp, pictures, same, weights
from tests.processes import run_processes

LAST = torch.channels_last
SETTINGS = Training(epochs=3, batch_size=8, learning_rate=0.05)
FAST = Machine(device="cpu", precision="bf16", layout="channels_last")


def without_dropout(*, seed=0):
    network = cnn(seed=seed)
    network[7] = nn.Identity()
    return network


class Seen(nn.Module):
    """Passes its input on and notes how it came."""

    def __init__(self):
        super().__init__()
        self.layouts, self.autocast, self.types = set(), set(), set()

    def forward(self, inputs):
        if self.training:
            self.layouts.add(inputs.is_contiguous(memory_format=LAST))
            self.types.add(inputs.dtype)
            self.autocast.add(torch.is_autocast_enabled("cpu"))
        else:
            assert not torch.is_autocast_enabled("cpu")
        return inputs


# -- layout --------------------------------------------------------------------------------------------------


def test_channels_last_is_the_same_to_rounding_and_leaves_contiguous_weights():
    """Adaptors are turned too; weights in memory go into files as they are."""
    batch, taps = pictures(8).batch(range(8)), {"student": ["2"], "teacher": ["2", "4"]}
    results = []
    for layout in ("contiguous", "channels_last"):
        torch.manual_seed(0)
        student = without_dropout()
        method = SemCKD(student, cnn(seed=1), taps=taps, example=batch, attention_batch=8, beta=1.0)
        results.append(fit(method, pictures(), pictures(12), SETTINGS, machine=Machine(layout=layout)))
    plain, turned = (result.method.state_dict() for result in results)
    for name, value in turned.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-4)
        assert value.is_contiguous()
    for kept in results[1].weights.values():
        assert save(kept)
    assert save(results[1].method.deployable().state_dict())


def test_every_convolution_and_every_picture_lies_in_channels_last_while_it_trains():
    first, second = Seen(), Seen()
    student = nn.Sequential(first, *list(cnn())[:4], second, *list(cnn())[4:])
    method = Supervised(student)
    kernel = student[1].weight
    fit(method, pictures(), None, SETTINGS, machine=Machine(layout="channels_last"))
    assert first.layouts == second.layouts == {True}
    assert student[1].weight is kernel
    assert kernel.is_contiguous()
    assert not kernel.grad.is_contiguous()  # it was computed for the layout of the kernel


def test_a_network_that_was_in_channels_last_stays_so():
    method = Supervised(cnn().to(memory_format=LAST))
    fit(method, pictures(), None, SETTINGS, machine=Machine(layout="channels_last"))
    assert method.student[0].weight.is_contiguous(memory_format=LAST)


def test_rows_have_no_layout():
    plain, turned = Supervised(mlp()), Supervised(mlp())
    fit(plain, data(), None, SETTINGS)
    fit(turned, data(), None, SETTINGS, machine=Machine(layout="channels_last"))
    assert same(weights(plain), weights(turned))


# -- precision -----------------------------------------------------------------------------------------------


def test_only_the_forward_of_what_trains_is_in_bfloat16():
    inside, after, told = Seen(), Seen(), []
    student = nn.Sequential(inside, *list(cnn()), after)
    teacher = nn.Sequential(Seen(), cnn(seed=1))

    class Watching(Method):
        card = KD.card

        def losses(self, student, teacher, batch):
            losses = kd.losses(student, teacher, batch)
            told.append({*(term.dtype for term in losses.terms.values()), losses.total.dtype})
            return losses

    kd, method = KD(cnn(), cnn()), Watching(student, Teacher(teacher))
    result = fit(method, pictures(), pictures(12), SETTINGS, machine=FAST)
    assert inside.autocast == {True}
    assert after.types == {torch.bfloat16}
    assert teacher[0].autocast == set()  # it never trains, and ran outside of autocast
    assert all(types == {torch.float32} for types in told)
    assert {value.dtype for value in weights(method).values()} == {torch.float32, torch.int64}
    assert result.history[-1]["terms"]["hard"] < result.history[0]["terms"]["hard"]


def test_every_stage_and_every_further_training_is_in_bfloat16():
    class Watching(Staged):
        def forward(self, batch, update="student"):
            told.append((update, torch.is_autocast_enabled("cpu")))
            return super().forward(batch, update)

    told, method = [], Watching(cnn())
    for _ in range(2):
        fit(method, pictures(), None, Training(epochs=4, batch_size=8), machine=Machine(precision="bf16"))
    assert {update for update, _ in told} == {"first", "one", "two", "student"}
    assert all(inside for _, inside in told)


@pytest.mark.parametrize("after", [1, 4, 7, 8])
def test_every_moment_resumes_to_the_same_bits(tmp_path, after):
    equal_after_stop(lambda: Supervised(cnn()), pictures(), SETTINGS, tmp_path, after, FAST)


def test_stages_and_a_fused_optimizer_resume_to_the_same_bits(tmp_path):
    options = {"momentum": 0.9, "fused": True}
    settings = Training(epochs=4, batch_size=8, optimizer_options=options, clip_norm=1.0)
    equal_after_stop(lambda: Staged(cnn()), pictures(), settings, tmp_path, 7, FAST)


def test_a_checkpoint_does_not_depend_on_the_layout(tmp_path):
    def make():
        return Supervised(without_dropout())

    whole = run(make, pictures(), SETTINGS, tmp_path / "whole")[0]
    run(make, pictures(), SETTINGS, tmp_path / "cut", after=4, machine=Machine(layout="channels_last"))
    resumed = run(make, pictures(), SETTINGS, tmp_path / "cut", resume=True)[0]
    for name, value in weights(resumed).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=1e-3, atol=1e-4)


SCRIPT = """
import sys
import torch
from limbeck.engine import fit
from tests.engine.test_machine import FAST, SETTINGS
from tests.engine.tiny import Supervised, cnn, pictures
torch.set_num_threads(1)
result = fit(Supervised(cnn()), pictures(26), pictures(13, seed=1), SETTINGS, machine=FAST)
kept = {"weights": result.method.state_dict(), "history": result.history}
torch.save(kept, f"{sys.argv[1]}/{torch.distributed.get_rank()}.pt")
torch.distributed.destroy_process_group()
"""


def test_two_processes_agree(tmp_path):
    run_processes(SCRIPT, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert same(first["weights"], second["weights"])
    assert all(value.is_contiguous() for value in first["weights"].values())
    terms = [entry["terms"]["hard"] for entry in first["history"]]
    assert terms[-1] < terms[0]


# -- compilation ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_thirty_epochs_of_ramps_cause_two_graphs_and_leave_nothing_behind(tmp_path):
    """One graph for whole batches, one for the smaller last one, whatever changes by the epoch."""

    def make():
        return KD(cnn(), cnn(seed=1), variant="decoupled", warmup=20)

    settings = Training(epochs=30, batch_size=8, learning_rate=0.02)
    machine = Machine(precision="bf16", layout="channels_last", compile=True)
    counters.clear()
    torch.compiler.reset()
    method, _, _, result = run(make, pictures(22), settings, tmp_path / "whole", machine=machine)
    assert 0 < counters["stats"]["unique_graphs"] <= 2
    assert method.student._compiled_call_impl is None
    assert set(method.state_dict()) == set(make().state_dict())
    hard = [entry["terms"]["hard"] for entry in result.history]
    assert hard[-1] < hard[0]
    run(make, pictures(22), settings, tmp_path / "cut", after=44, machine=machine)
    resumed = run(make, pictures(22), settings, tmp_path / "cut", resume=True, machine=machine)[0]
    assert same(weights(resumed), weights(method))


def test_copies_of_a_compiled_network_are_not_compiled():
    network = cnn()
    method = Supervised(network)
    plain = weights(method)
    network.compile(backend="eager")
    for other in (
        untapped(network),
        copy.deepcopy(network),
        method.deployable(),
        method.networks()["student"],
    ):
        assert other._compiled_call_impl is None
    assert same(weights(method), plain)
    fit(method, pictures(8), None, Training(epochs=1, batch_size=8))
    assert network._compiled_call_impl is not None  # whoever compiled it keeps it so


def test_the_networks_that_are_compiled():
    batch, taps = pictures(8).batch(range(8)), {"student": ["2"], "teacher": ["2"]}
    student, cohort, teacher = cnn(), [mlp(seed=1), mlp(seed=2)], mlp(seed=3)
    assert KD(student, cnn()).learners() == [student]
    assert SSKD(student, cnn(seed=1), taps=taps, example=batch).learners() == [student]
    assert PeerMutualKD(cohort, teacher).learners() == [teacher, *cohort]
